#!/bin/bash
# What the Lambda Web Adapter starts: the server of `chatledger serve`, from this very folder.
cd "$(dirname "$0")"
exec python3 -m chatledger serve
