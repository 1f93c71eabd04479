#!/bin/bash
# The Lambda Web Adapter starts this script, which runs `chatledger serve` from this folder.
cd "$(dirname "$0")"
exec python3 -m chatledger serve
