#!/bin/bash
# Removes the old shard and its tablets from the topology.

set -e

source ./env.sh

./lvtctl.sh DeleteShard -recursive customer/0
