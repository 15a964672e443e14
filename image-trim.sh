#!/bin/sh
# Removes from an image's packages what no process of ours loads; run in the layer that installs them. Compiled Python
# stays: with a read-only root a process would compile anew at each start.
set -eu
cd /opt/fabwafer/lib/python3.11/site-packages

# Tests, and the sources of what is compiled.
find . -type d -name tests -prune -exec rm -r {} +
find . -type f \( -name '*.c' -o -name '*.cpp' -o -name '*.pyx' -o -name '*.pxd' \) -delete

# The same client of Kubernetes once more, for asyncio.
rm -rf kubernetes/aio

# Descriptions of all services of AWS, but for the bucket's and those that give its credentials.
if [ -d botocore/data ]; then
    find botocore/data -mindepth 1 -maxdepth 1 -type d \
        ! -name s3 ! -name signin ! -name sso ! -name sso-oidc ! -name sts -exec rm -r {} +
fi
