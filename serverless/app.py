"""The chatbot on AWS Lambda. Add your own routes here."""

from chalice.app import Chalice
from chalicelib.chatbot import serve

# By default Chalice configures the logger named like the app. It is also the logger of the package
# chatledger, whose warnings Chalice would then silence.
app = Chalice(app_name="chatledger", configure_logs=False)
serve(app)
