#!/bin/bash
# Copies the tables customer and corder from commerce to customer and starts filtered replication.

set -e

source ./env.sh

# shellcheck disable=SC2086
vtworker \
  $TOPOLOGY_FLAGS \
  -cell zone1 \
  -log_dir "$VTDATAROOT/tmp" \
  -alsologtostderr \
  -use_v3_resharding_mode \
  VerticalSplitClone -min_healthy_tablets=1 -tables=customer,corder customer/0
