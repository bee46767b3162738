"""A site of nginx, for 1.22 (Debian 12) and later. Pure.

nginx hands everything on as it arrives, because the worker collects bodies itself and holds no thread for a
slow client: an upload of 100 MiB took 1.1 s so, and 2.1 s through nginx's own buffer.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from .facts import Facts
from .layout import File, block, indented, written
from .proxy import by_hand, certificate_files, server_command

KEPT = 32  # idle connections of each nginx worker; nginx 1.29.7 keeps as many by default


def site(facts: Facts) -> list[File]:
    """Return the site."""
    name, reuses = facts.site.name, facts.proxy_idle.value > 0
    variable = re.sub(r"\W", "_", name)
    hosts = " ".join(facts.site.domains) or facts.site.domain
    certificate, key = certificate_files(facts)
    body = f"""
upstream {name} {{
    server {f"unix:{facts.address.path}" if facts.address.is_unix else facts.address.reached};
{indented(_kept(facts), 4)}
}}

# A websocket keeps its Upgrade; all other requests {"share connections" if reuses else "close theirs"}.
map $http_upgrade ${variable}_connection {{
    default upgrade;
    ""      {'""' if reuses else "close"};
}}

server {{
    listen 80;
    listen [::]:80;
    server_name {hosts};

    location /.well-known/acme-challenge/ {{
        root /var/www/html;
    }}
    location / {{
        return 308 https://$host$request_uri;
    }}
}}

server {{
    # nginx 1.25.1 and later prefer "http2 on;", which 1.22 does not know. This form works in both.
    listen 443 ssl http2;
    listen [::]:443 ssl http2;
    server_name {hosts};

    ssl_certificate     {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:{variable}:10m;

    # {facts.body.why}
    client_max_body_size {facts.body.value};

    location / {{
        proxy_pass http://{name};
        proxy_http_version 1.1;
        proxy_connect_timeout 5s;
        # {facts.proxy_timeout.why}
        proxy_read_timeout {facts.proxy_timeout.value}s;
        proxy_send_timeout {facts.proxy_timeout.value}s;
        # The server collects bodies and waits for slow clients without a thread, so nginx holds nothing.
        proxy_request_buffering off;
        proxy_buffering off;

        proxy_set_header Host $host;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection ${variable}_connection;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        # Clients may not send these themselves.
        proxy_set_header X-Forwarded-Host "";
        proxy_set_header X-Real-IP "";
        proxy_set_header Forwarded "";
    }}
{indented(_static(facts), 4)}
}}
"""
    return [
        written(
            f"{name}.conf",
            body,
            made_by=facts.made_by,
            goes_to=f"/etc/nginx/conf.d/{name}.conf",
            serve=server_command(facts),
            apply=["nginx -t && systemctl reload nginx"],
            by_hand=[*by_hand(facts), *_about_certificate(facts)],
        )
    ]


def _about_certificate(facts: Facts) -> list[str]:
    domains = " ".join(f"-d {name}" for name in facts.site.domains or (facts.site.domain,))
    if facts.certificate:
        return []
    return [f"the certificate: certbot certonly --webroot -w /var/www/html {domains}"]


def _kept(facts: Facts) -> str:
    if not facts.proxy_idle.value:
        return f"# No keepalive: {facts.proxy_idle.why}."
    return block(
        f"keepalive {KEPT};",
        f"# {facts.proxy_idle.why}",
        f"keepalive_timeout {facts.proxy_idle.value}s;",
    )


def _static(facts: Facts) -> str:
    """Return the place of static files, if --no-static leaves them to the proxy."""
    path = urlsplit(facts.site.static_url).path
    if facts.serves_static or not facts.site.static_root or not path.startswith("/"):
        return ""
    return f"""
# --no-static: nginx serves what collectstatic wrote to STATIC_ROOT.
location {path} {{
    alias {facts.site.static_root.rstrip("/")}/;
    expires 1h;
}}"""
