#!/bin/sh
# Makes the archives next to this script with the nix-store on PATH. See README.md.
set -eu
out=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
umask 022
export LC_ALL=C

printf hi >hi
: >empty-file
printf '#!/bin/sh\n' >executable && chmod 0755 executable
printf 'not for its owner' >group-executable && chmod 0654 group-executable
mkdir empty-directory
ln -s ../somewhere/else symlink

mkdir -p tree/d && : >tree/e && ln -s x tree/l && printf '#!\n' >tree/x && chmod 0755 tree/x

mkdir names
for name in B a a-b a.b 'with space' "$(printf 'new\nline')" "$(printf 'not-utf8-\377\376')" \
    '...' '-' "$(printf '%0255d' 0)"; do
    printf '%s' "$name" >"names/$name"
done

mkdir links && printf 'one inode' >links/a && ln links/a links/b && chmod 4711 links/a

mkdir sizes && for size in 1 7 8 9 15 16 17; do head -c $size /dev/zero | tr '\0' x >sizes/$size; done

deep=deep
for level in $(seq 62); do deep=$deep/d; done
mkdir -p $deep && printf bottom >$deep/file

for object in hi empty-file executable group-executable empty-directory symlink tree names links sizes deep; do
    nix-store --dump $object >"$out/$object.nar"
done
cd "$out" && sha256sum *.nar >SHA256SUMS
