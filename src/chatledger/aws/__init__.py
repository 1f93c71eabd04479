"""AWS configuration shared by the DynamoDB store and the Bedrock models."""
