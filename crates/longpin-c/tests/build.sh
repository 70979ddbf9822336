#!/bin/sh
# Install the library below a directory, and compile tests/hold.c there as any program in C would be.
#
#	build.sh liblongpin_c.so DIRECTORY
set -eu

here=$(dirname "$0")
sh "$here/../install.sh" "$1" "$2"
LC_ALL=C readelf -d "$2/lib/liblongpin.so" | grep -q 'soname: \[liblongpin\.so\.0\]' || {
	echo "its soname is not liblongpin.so.0" >&2
	exit 1
}
PKG_CONFIG_PATH=$2/lib/pkgconfig
export PKG_CONFIG_PATH
# shellcheck disable=SC2046 # words
cc -std=c99 -D_GNU_SOURCE -Wall -Wextra -Werror -o "$2/hold" "$here/hold.c" $(pkg-config --cflags --libs longpin)
