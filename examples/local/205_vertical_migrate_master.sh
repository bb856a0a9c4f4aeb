#!/bin/bash
# Lets the master of customer serve the tables that moved.

set -e

source ./env.sh

./lvtctl.sh MigrateServedFrom customer/0 master
