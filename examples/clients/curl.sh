#!/bin/sh
# A model served by `gpt3 serve`, asked with curl: one answer, then a stream.
# usage: sh curl.sh ["Your prompt"]   (GPT3_URL: the server; GPT3_API_KEY: its key, if it has one)
set -eu
url=${GPT3_URL:-http://127.0.0.1:8000}
prompt=${1:-The sea was}
body() { # JSON of a prompt without quotes or backslashes in it
  printf '{"prompt": "%s", "max_tokens": 20, "temperature": 0.7, "stream": %s}' "$prompt" "$1"
}

body false | curl -sSf "$url/v1/completions" -H "Content-Type: application/json" \
  -H "Authorization: Bearer ${GPT3_API_KEY:-none}" -d @-
echo
body true | curl -sSfN "$url/v1/completions" -H "Content-Type: application/json" \
  -H "Authorization: Bearer ${GPT3_API_KEY:-none}" -d @-
