#!/usr/bin/env bash
# Passwords for docker-compose.yml, made here and now: `deploy/secrets.sh [FILE]` (.env, which git
# ignores). What the file holds already stays; run it again after an upgrade to add what is new.
set -euo pipefail
cd "$(dirname "$0")/.."
file=${1:-.env}

secret() { # 192 bits, in letters and digits: it is put into URLs
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

umask 077
touch "$file"
chmod 600 "$file"
# What a person wrote last may lack its end of line.
[ -z "$(tail -c1 "$file")" ] || echo >>"$file"
for name in POSTGRES_PASSWORD GRAFANA_PASSWORD; do
    if grep -q "^$name=." "$file"; then
        echo "$file: $name stays" >&2
    else
        sed -i.old "/^$name=\$/d" "$file" && rm -f "$file.old"
        echo "$name=$(secret)" >>"$file"
        echo "$file: $name made" >&2
    fi
done
