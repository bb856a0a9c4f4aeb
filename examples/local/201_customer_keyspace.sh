#!/bin/bash
# Creates the keyspace customer, which commerce serves until its tables have moved.

set -e

source ./env.sh

./lvtctl.sh CreateKeyspace -served_from='master:commerce,replica:commerce,rdonly:commerce' customer
