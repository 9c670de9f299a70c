#!/bin/sh
# GitLab's runner starts `sh -c ...` by way of an image's entry point; so does a person, with any command.
# A checkout that belongs to another user is what every job has.
git config --system --replace-all safe.directory '*' 2>/dev/null
exec "$@"
