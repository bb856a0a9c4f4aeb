#!/bin/bash
# Sends one command to the vtctld of this walkthrough.
exec vtctlclient -server localhost:15999 "$@"
