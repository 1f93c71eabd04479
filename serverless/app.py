"""The chatbot on AWS Lambda. Routes of your own go here too."""

from chalice.app import Chalice
from chalicelib.chatbot import serve

# Chalice would set up the logger of that name, which is ours too, and silence its warnings.
app = Chalice(app_name="chatledger", configure_logs=False)
serve(app)
