"""Access to AWS: configuration, signatures and HTTP, for the DynamoDB store and Bedrock models."""
