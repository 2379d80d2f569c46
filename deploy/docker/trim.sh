#!/bin/sh
# Makes /rootfs: of this Debian with Python, what a service uses. No package manager, pip, documentation or other
# languages: what is not there needs no update. It becomes one layer that all images share.
set -eu
epoch=$SOURCE_DATE_EPOCH
mkdir -p /rootfs/usr
cd /rootfs
cp -a /etc /bin /sbin /lib .
[ ! -e /lib64 ] || cp -a /lib64 .
cp -a /usr/bin /usr/sbin /usr/lib /usr/share /usr/local usr/
[ ! -e /usr/lib64 ] || cp -a /usr/lib64 usr/
mkdir -p var/lib var/tmp run tmp opt root data models proc sys dev
cp -a /var/lib/dpkg var/lib/  # by it scanners know which packages there are
rm -rf var/lib/dpkg/info

# Python's own: its tests, its tools to install packages, its windows and editors.
for library in usr/local/lib/python3.* usr/lib/python3.*; do
    [ -d "$library" ] || continue
    rm -rf "$library/test" "$library/idlelib" "$library/tkinter" "$library/turtledemo" "$library/turtle.py" \
        "$library/ensurepip" "$library/lib2to3" "$library/pydoc_data" "$library/site-packages" "$library"/config-3.* \
        "$library"/lib-dynload/_tkinter*.so "$library"/lib-dynload/_test*.so "$library"/lib-dynload/xx*.so
done
rm -rf usr/lib/python3/dist-packages usr/share/python-wheels usr/share/python3 usr/share/python usr/local/include \
    usr/local/share
rm -f usr/local/bin/pip* usr/local/bin/idle* usr/local/bin/pydoc* usr/local/bin/2to3* usr/local/bin/python3*-config \
    usr/bin/pip* usr/bin/pydoc* usr/bin/pyg* usr/bin/py3*

# Debian's: how packages come and go, Perl, which only they use, words in other languages.
rm -rf etc/apt usr/lib/apt usr/lib/dpkg usr/lib/locale usr/lib/systemd usr/lib/udev usr/lib/*/perl* usr/lib/*/gconv \
    usr/lib/*/security usr/share/perl usr/share/perl5 usr/share/doc usr/share/man usr/share/info usr/share/locale \
    usr/share/lintian usr/share/bug usr/share/debconf usr/share/i18n usr/share/common-licenses usr/share/gcc \
    usr/share/gdb usr/share/bash-completion usr/share/keyrings usr/share/menu
rm -f usr/bin/apt* usr/bin/perl* usr/bin/dpkg* usr/bin/deb* usr/bin/sqv usr/bin/openssl usr/lib/*/libapt-*.so*
# Nobody here becomes somebody else.
find . -perm /6000 -type f -exec chmod a-s {} +

# Who runs services: by number for those who ask for one, by name for those who look.
echo 'foretell:x:10001:10001:Foretell:/data:/usr/sbin/nologin' >>etc/passwd
echo 'foretell:x:10001:' >>etc/group
chown 10001:10001 data models
chmod 0700 data root
chmod 1777 tmp var/tmp

# Compiled by content: by date they would all be compiled anew, at every start, after the last line of this file.
for library in usr/local/lib/python3.* usr/lib/python3.*; do
    [ -d "$library" ] || continue
    find "$library" -name __pycache__ -prune -exec rm -rf {} +
    PYTHONHASHSEED=0 python3 -m compileall -q -j 1 -s /rootfs -p / --invalidation-mode unchecked-hash "/rootfs/$library"
done

# Whoever builds again gets the same bytes.
rm -f etc/passwd- etc/group- etc/shadow- etc/gshadow-
find . -exec touch -h -d "@$epoch" {} +
