#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# check-package.sh BUILD: makes the Debian package of a release build and looks into it.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
build=$1
cd "$build"
rm -f ferry_*.deb
cpack -G DEB >cpack.log 2>&1 || { cat cpack.log; exit 1; }
deb=$(ls ferry_*.deb)

contents=$(dpkg-deb --contents "$deb")
for file in usr/sbin/ferryd usr/bin/ferry usr/libexec/ferry/ferry-watchdog usr/libexec/ferry/ferry-pam etc/ferry/ferryd.conf etc/pam.d/ferry usr/lib/systemd/system/ferryd.service \
    usr/lib/systemd/system/ferry-pam.socket usr/lib/systemd/system/ferry-pam@.service \
    usr/lib/sysusers.d/ferry.conf usr/lib/tmpfiles.d/ferry.conf usr/share/man/man8/ferryd.8.gz \
    usr/share/man/man1/ferry.1.gz usr/share/man/man5/ferryd.conf.5.gz \
    usr/share/bash-completion/completions/ferry usr/share/doc/ferry/copyright; do
    grep -q " \./$file\$" <<<"$contents" || { echo "$deb lacks /$file"; exit 1; }
done
if grep -v ' root/root ' <<<"$contents"; then
    echo "$deb: the files above do not belong to root"
    exit 1
fi

depends=$(dpkg-deb --field "$deb" Depends)
for package in tgt libc6 libsqlite3-0 libmicrohttpd12 libiscsi7 libpam0g libpam-runtime; do
    grep -q "\b$package\b" <<<"$depends" || { echo "$deb does not depend on $package: $depends"; exit 1; }
done

control=$(mktemp -d)
trap 'rm -rf "$control"' EXIT
dpkg-deb --control "$deb" "$control"
[ "$(cat "$control/conffiles")" = $'/etc/ferry/ferryd.conf\n/etc/pam.d/ferry' ]
for script in postinst prerm postrm; do
    [ -x "$control/$script" ] && sh -n "$control/$script"
done

dpkg-deb --extract "$deb" "$control/root"
"$here/check-points.sh" absent "$control/root/usr/sbin/ferryd" "$control/root/usr/bin/ferry" \
    "$control/root/usr/libexec/ferry/ferry-watchdog"
"$control/root/usr/sbin/ferryd" --version
"$control/root/usr/bin/ferry" --version
echo "package: $deb is complete"
