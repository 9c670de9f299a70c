#!/bin/sh
# GitLab's runner starts `sh -c ...` by way of an image's entry point; so does a person, with any command.
# A user whom the image does not know, or with a read-only root, has no home to write to.
[ -w "$HOME" ] || export HOME=/tmp
exec "$@"
