#!/bin/sh
# Install longpin for C: the header, the library under its soname, and the file for pkg-config.
#
#	install.sh liblongpin_c.so PREFIX
#
# DESTDIR in the environment goes before PREFIX, as usual.
set -eu

library=$1 prefix=$2
here=$(dirname "$0")
header=$here/include/longpin.h
to=${DESTDIR:-}$prefix
number() { sed -n "s/^#define LONGPIN_VERSION_$1 //p" "$header"; }
version=$(number MAJOR).$(number MINOR).$(number PATCH)
soname=$(LC_ALL=C readelf -d "$library" | sed -n 's/.*soname: \[\(.*\)\]/\1/p')
[ -n "$soname" ] || { echo "$0: $library has no soname that readelf (binutils) tells" >&2; exit 1; }

mkdir -p "$to/include" "$to/lib/pkgconfig"
install -m 644 "$header" "$to/include/"
install -m 644 "$library" "$to/lib/liblongpin.so.$version"
ln -sf "liblongpin.so.$version" "$to/lib/$soname"
ln -sf "$soname" "$to/lib/liblongpin.so"
sed "s|@PREFIX@|$prefix|; s|@VERSION@|$version|" "$here/../../data/longpin.pc.in" >"$to/lib/pkgconfig/longpin.pc"
