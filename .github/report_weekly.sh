#!/bin/bash
# report_weekly.sh RESULT ADDRESS: keep one open issue while the weekly run fails. The first failure opens it, further
# ones comment on it, the next success closes it. GH_TOKEN and GH_REPO say where, for GitHub's own command line gh.
set -euo pipefail
result=$1
address=$2
label=weekly-run
number=$(gh issue list --state open --label "$label" --limit 1 --json number --jq '.[0].number // empty')
if [ "$result" = success ]; then
    if [ -n "$number" ]; then
        gh issue close "$number" --comment "Green again: $address"
    fi
elif [ -n "$number" ]; then
    gh issue comment "$number" --body "Still red ($result): $address"
else
    gh label create "$label" --force --color B60205 --description "the weekly rerun of everything fails"
    gh issue create --title "The weekly run is red" --label "$label" \
        --body "The numbers, or the book at profile full, could not be made again ($result): $address"
fi
