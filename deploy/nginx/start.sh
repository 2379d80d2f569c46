#!/bin/sh
# Writes nginx's configuration from the templates beside this file and the environment, and becomes nginx.
#
#   start.sh            write it, look after certificates, run nginx in the foreground
#   start.sh --render   write it and print where it is
#   start.sh --test     write it and let nginx check it
#
# For sh of any kind (dash, busybox) with envsubst; docs/proxy.md lists the settings.
set -eu
umask 077

here=$(cd "$(dirname "$0")" && pwd)
nginx=${FORETELL_NGINX_PROGRAM:-nginx}
run=${FORETELL_NGINX_RUN:-/tmp/foretell-nginx}
conf=$run/conf

fail() {
    printf 'nginx: %s\n' "$*" >&2
    exit 1
}

# NAME_FILE holds what NAME would say, as for every service. The environment itself counts more.
from_file() {
    eval "file=\${$1_FILE:-} value=\${$1:-}"
    if [ -z "$value" ] && [ -n "$file" ]; then
        value=$(cat "$file") || fail "$1_FILE: $file can't be read."
        [ -n "$value" ] || fail "$1_FILE: $file is empty."
        eval "$1=\$value"
    fi
}

# A setting that ends up in nginx's configuration holds nothing that means something there.
check() { # NAME PATTERN WHAT
    eval "value=\$$1"
    printf '%s\n' "$value" | LC_ALL=C grep -qE "^($2)$" || fail "$1 must be $3."
    case $value in *"
"*) fail "$1 must be one line." ;; esac
}

number() { check "$1" '[0-9]{1,15}' 'a whole number'; }

settings() {
    : "${FORETELL_ENVIRONMENT:=development}"
    # Where the services are, HOST:PORT.
    : "${FORETELL_APP_UPSTREAM:=app:8000}" "${FORETELL_MODEL_UPSTREAM:=model-service:8001}"
    : "${FORETELL_PREPROCESSING_UPSTREAM:=preprocessing-service:8002}"
    : "${FORETELL_MONITORING_UPSTREAM:=monitoring-service:8003}" "${FORETELL_BOT_UPSTREAM:=bot:8004}"
    # Where nginx listens, and under which port the outside knows the secure one.
    : "${FORETELL_NGINX_LISTEN:=0.0.0.0}" "${FORETELL_NGINX_HTTP_PORT:=80}" "${FORETELL_NGINX_HTTPS_PORT:=443}"
    : "${FORETELL_HTTPS_PORT:=$FORETELL_NGINX_HTTPS_PORT}"
    # TLS is on when both files are there.
    : "${FORETELL_NGINX_CERTIFICATES:=/etc/nginx/certificates}" "${FORETELL_NGINX_HSTS_S:=31536000}"
    : "${FORETELL_NGINX_ACME:=$run/acme}" "${FORETELL_NGINX_LOOK_S:=10}"
    # Bounds: those of the services, from the same settings.
    : "${FORETELL_MONITORING_MAX_BODY_BYTES:=33554432}" "${FORETELL_MAX_HEAD_BYTES:=65536}"
    : "${FORETELL_MAX_PACKAGE_BYTES:=25165824}"
    app_body=${FORETELL_MAX_BODY_BYTES:-1048576}
    model_body=${FORETELL_MAX_BODY_BYTES:-16777216}
    # Each address alone: requests a second (0: any number), how many more at once, requests under way.
    : "${FORETELL_NGINX_RATE:=500}" "${FORETELL_NGINX_BURST:=2000}" "${FORETELL_NGINX_CONNECTIONS:=1000}"
    # How long a service may be silent: in an answer, in a stream of events.
    : "${FORETELL_NGINX_TIMEOUT_S:=180}" "${FORETELL_NGINX_STREAM_TIMEOUT_S:=3600}"
    : "${FORETELL_NGINX_STOP_S:=25}" "${FORETELL_NGINX_WORKERS:=auto}" "${FORETELL_NGINX_LOG_LEVEL:=crit}"
    : "${FORETELL_NGINX_ACCESS_LOG:=/dev/stdout}" "${FORETELL_NGINX_RESOLVER:=}" "${FORETELL_NGINX_RESOLVE_S:=2}"
    # Who stands in front of nginx and is believed: addresses or networks, with commas.
    : "${FORETELL_NGINX_TRUSTED_PROXIES:=}" "${FORETELL_MONITORING_TOKEN:=}"
    from_file FORETELL_MONITORING_TOKEN
    case $FORETELL_ENVIRONMENT in
        production) : "${FORETELL_NGINX_MODEL_ACCESS:=operators}" ;;
        *) : "${FORETELL_NGINX_MODEL_ACCESS:=everybody}" ;;
    esac
}

check_settings() {
    for name in APP MODEL PREPROCESSING MONITORING BOT; do
        check "FORETELL_${name}_UPSTREAM" '([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}' 'HOST:PORT'
    done
    for name in HTTPS_PORT MONITORING_MAX_BODY_BYTES MAX_HEAD_BYTES MAX_PACKAGE_BYTES NGINX_HTTP_PORT NGINX_HTTPS_PORT NGINX_HSTS_S \
        NGINX_LOOK_S NGINX_RATE NGINX_BURST NGINX_CONNECTIONS NGINX_TIMEOUT_S NGINX_STREAM_TIMEOUT_S NGINX_STOP_S \
        NGINX_RESOLVE_S; do
        number "FORETELL_$name"
    done
    FORETELL_MAX_BODY_BYTES=$app_body
    number FORETELL_MAX_BODY_BYTES
    check FORETELL_NGINX_LISTEN '[0-9.]+|\[[0-9A-Fa-f:.]+\]|\*' 'an address; one of IPv6 in [ ]'
    check FORETELL_NGINX_WORKERS 'auto|[0-9]{1,4}' 'auto or a number'
    check FORETELL_NGINX_LOG_LEVEL 'debug|info|notice|warn|error|crit|alert|emerg' 'one of nginx'\''s levels'
    check FORETELL_NGINX_MODEL_ACCESS 'everybody|users|operators|nobody' 'everybody, users, operators or nobody'
    check FORETELL_NGINX_TRUSTED_PROXIES '([0-9A-Fa-f:.]+(/[0-9]{1,3})?( *, *)?)*' 'addresses or networks, with commas'
    # RFC 6750's token: nothing that ends a string of nginx's.
    check FORETELL_MONITORING_TOKEN '[A-Za-z0-9._~+/=-]*' 'of letters, digits and -._~+/='
    for name in CERTIFICATES ACME ACCESS_LOG; do
        check "FORETELL_NGINX_$name" '/[A-Za-z0-9._/-]*' 'a path of letters, digits, and ._/-'
    done
}

has_a_name() {
    for each in "$@"; do
        # What is neither [an address of IPv6] nor made of digits and points.
        case ${each%:*} in
            \[*) ;;
            *[!0-9.]*) return 0 ;;
        esac
    done
    return 1
}

# What the templates take besides: lines that depend on nginx's release, or on what is there.
derive() {
    release=$("$nginx" -v 2>&1 | sed -n 's,.*nginx/\([0-9]*\)\.\([0-9]*\)\.\([0-9]*\).*,\1 \2 \3,p')
    [ -n "$release" ] || fail "$nginx is no nginx."
    # shellcheck disable=SC2086
    set -- $release
    number_of_release=$(($1 * 1000000 + $2 * 1000 + $3))
    # From 1.27.3 on, a group of servers follows the name that it was made from, and keeps connections open. Before,
    # only one of addresses can do without following.
    upstreams=keeping follow=''
    if [ "$number_of_release" -ge 1027003 ]; then
        follow=' resolve'
    elif has_a_name "$FORETELL_APP_UPSTREAM" "$FORETELL_MODEL_UPSTREAM" "$FORETELL_PREPROCESSING_UPSTREAM"; then
        upstreams=asking
    fi
    http2_listen='' http2_line=''
    [ "$number_of_release" -ge 1025001 ] && http2_line='http2 on;' || http2_listen=' http2'
    if [ -z "$FORETELL_NGINX_RESOLVER" ]; then
        FORETELL_NGINX_RESOLVER=$(sed -n 's/^nameserver[[:space:]]\{1,\}\([0-9A-Fa-f:.]*\).*/\1/p' /etc/resolv.conf |
            sed 's/^\(.*:.*\)$/[\1]/' | head -n 3 | tr '\n' ' ')
        [ -n "$FORETELL_NGINX_RESOLVER" ] || FORETELL_NGINX_RESOLVER=127.0.0.1
    fi
    check FORETELL_NGINX_RESOLVER '[][0-9A-Fa-f:. ]+' 'addresses of name servers, with blanks'
    real_ip='' trusted=''
    for network in $(printf '%s' "$FORETELL_NGINX_TRUSTED_PROXIES" | tr ',' ' '); do
        real_ip="$real_ip    set_real_ip_from $network;
"
        trusted="$trusted        $network 1;
"
    done
    rate_key='$rate_key'
    rate=$FORETELL_NGINX_RATE
    [ "$rate" -gt 0 ] || { rate_key='""' rate=1; }
    [ "$FORETELL_NGINX_BURST" -gt 0 ] || FORETELL_NGINX_BURST=1
    [ "$FORETELL_NGINX_CONNECTIONS" -gt 0 ] || FORETELL_NGINX_CONNECTIONS=65000
    [ "$FORETELL_NGINX_HSTS_S" -gt 0 ] && hsts="max-age=$FORETELL_NGINX_HSTS_S" || hsts=''
    public_port=":$FORETELL_HTTPS_PORT"
    [ "$FORETELL_HTTPS_PORT" -ne 443 ] || public_port=''
    case $FORETELL_NGINX_MODEL_ACCESS in
        everybody) model_access='' ;;
        users) model_access='auth_request /-/user;' ;;
        operators) model_access='auth_request /-/operator;' ;;
        nobody) model_access='return 404;' ;;
    esac
    authorization=''
    [ -z "$FORETELL_MONITORING_TOKEN" ] || authorization="Bearer $FORETELL_MONITORING_TOKEN"
}

has_certificates() {
    [ -s "$FORETELL_NGINX_CERTIFICATES/fullchain.pem" ] && [ -s "$FORETELL_NGINX_CERTIFICATES/privkey.pem" ]
}

render() {
    mkdir -p "$conf" "$run/temp" "$run/pages/-" "$FORETELL_NGINX_ACME"
    # Below the address under which nginx has them.
    cp "$here"/pages/*.html "$run/pages/-/"
    # What nginx's workers, who are another user, read and pass through. The configuration, with its secret, is read by
    # whoever starts nginx.
    chmod 711 "$run" "$run/temp"
    chmod 755 "$run/pages" "$run/pages/-" "$FORETELL_NGINX_ACME"
    chmod 644 "$run"/pages/-/*.html
    if has_certificates; then servers=secure; else servers=plain; fi
    export FORETELL_NGINX_HERE="$here" FORETELL_NGINX_RUN="$run"
    for name in APP MODEL PREPROCESSING MONITORING BOT; do eval "export FORETELL_${name}_UPSTREAM"; done
    export FORETELL_MAX_BODY_BYTES FORETELL_MONITORING_MAX_BODY_BYTES FORETELL_MAX_HEAD_BYTES FORETELL_MAX_PACKAGE_BYTES
    for name in LISTEN HTTP_PORT HTTPS_PORT CERTIFICATES ACME BURST CONNECTIONS TIMEOUT_S STREAM_TIMEOUT_S STOP_S \
        WORKERS LOG_LEVEL ACCESS_LOG RESOLVER RESOLVE_S; do
        eval "export FORETELL_NGINX_$name"
    done
    export FORETELL_NGINX_MODEL_BODY_BYTES="$model_body" FORETELL_NGINX_REAL_IP="$real_ip"
    export FORETELL_NGINX_TRUSTED="$trusted" FORETELL_NGINX_RATE_KEY="$rate_key" FORETELL_NGINX_RATE="$rate"
    export FORETELL_NGINX_HSTS="$hsts" FORETELL_NGINX_PUBLIC_PORT="$public_port" FORETELL_NGINX_SERVERS="$servers"
    export FORETELL_NGINX_UPSTREAMS="$upstreams" FORETELL_NGINX_FOLLOW="$follow" FORETELL_NGINX_HTTP2_LISTEN="$http2_listen"
    export FORETELL_NGINX_HTTP2="$http2_line" FORETELL_NGINX_MODEL_ACCESS_RULE="$model_access"
    export FORETELL_NGINX_AUTHORIZATION="$authorization"
    # Only ours are put in: nginx has variables of its own.
    ours=$(env | LC_ALL=C sed -n 's/^\(FORETELL_[A-Z0-9_]*\)=.*/${\1}/p' | tr '\n' ' ')
    for template in "$here"/templates/*.template; do
        envsubst "$ours" <"$template" >"$conf/$(basename "$template" .template)"
    done
}

fingerprint() {
    cat "$FORETELL_NGINX_CERTIFICATES/fullchain.pem" "$FORETELL_NGINX_CERTIFICATES/privkey.pem" 2>/dev/null | cksum
}

# Certificates come and are renewed while nginx runs. What does not fit is told and not used.
look_after_certificates() { # PID
    known=$(fingerprint)
    while sleep "$FORETELL_NGINX_LOOK_S" && kill -0 "$1" 2>/dev/null; do
        now=$(fingerprint)
        [ "$now" != "$known" ] || continue
        known=$now
        render
        if "$nginx" -t -q -p "$run/" -c "$conf/nginx.conf"; then
            printf 'nginx: other certificates are used from now on.\n' >&2
            kill -HUP "$1"
        else
            printf 'nginx: the new certificates are not used: what was there before stays.\n' >&2
        fi
    done
}

settings
check_settings
derive
render
case ${1:-} in
    --render) printf '%s\n' "$conf" ;;
    --test) exec "$nginx" -t -p "$run/" -c "$conf/nginx.conf" ;;
    '')
        look_after_certificates $$ &
        unset FORETELL_MONITORING_TOKEN FORETELL_NGINX_AUTHORIZATION
        exec "$nginx" -p "$run/" -c "$conf/nginx.conf" -g 'daemon off;'
        ;;
    *) fail "start.sh [--render|--test]" ;;
esac
