#!/bin/sh
# Stands in for a user's browser that is already signed in: BROWSER=.../browser.sh, run as `browser.sh URL`.
#
# The authorization server redirects at once, and the address that it names is fetched from behind, since a program may
# open a browser before it listens, and may wait until the browser has ended. $RIG_BROWSER_LOG gets a line for each step.
say() { [ -z "$RIG_BROWSER_LOG" ] || echo "$*" >>"$RIG_BROWSER_LOG"; }

say "open $1"
back=$(curl -sS -m 10 -o /dev/null -w '%{redirect_url}' "$1")
[ -n "$back" ] || { say "nowhere"; exit 1; }
say "back $back"
{
  status=$(curl -sS -m 10 --retry 20 --retry-delay 1 --retry-connrefused -o /dev/null -w '%{http_code}' "$back")
  say "answered $status"
} >/dev/null 2>&1 &
