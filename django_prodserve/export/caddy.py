"""A Caddyfile, for Caddy 2.6 (Debian 12) and later. Caddy gets the certificate by itself. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from .facts import Facts
from .layout import File, written
from .proxy import by_hand, certificate_files, server_command


def site(facts: Facts) -> list[File]:
    """Return the Caddyfile."""
    address = f"unix/{facts.address.path}" if facts.address.is_unix else facts.address.reached
    idle = facts.proxy_idle.value
    body = f"""
{", ".join(facts.site.domains) or facts.site.domain} {{
{_tls(facts)}
{_body(facts)}
{_static(facts)}
	reverse_proxy {address} {{
		# Caddy replaces X-Forwarded-* of a client by its own, and would hand these on.
		header_up -Forwarded
		header_up -X-Real-IP
		# Pieces of a stream leave as they arrive.
		flush_interval -1
		transport http {{
			dial_timeout 5s
			# {facts.proxy_timeout.why}
			response_header_timeout {facts.proxy_timeout.value}s
			# {facts.proxy_idle.why}
			keepalive {f"{idle}s" if idle else "off"}
		}}
	}}
}}
"""
    hosts = facts.site.domains or (facts.site.domain,)
    found = by_hand(facts)
    if not facts.certificate:
        found.append(f"DNS: {', '.join(hosts)} must lead to this machine before Caddy can get a certificate")
    return [
        written(
            "Caddyfile",
            body,
            made_by=facts.made_by,
            goes_to="/etc/caddy/Caddyfile",
            serve=server_command(facts),
            apply=["caddy validate --config /etc/caddy/Caddyfile", "systemctl reload caddy"],
            by_hand=found,
        )
    ]


def _tls(facts: Facts) -> str:
    return "\ttls {} {}".format(*certificate_files(facts)) if facts.certificate else ""


def _body(facts: Facts) -> str:
    if not facts.body.value:
        return f"\t# {facts.body.why}"
    return f"\t# {facts.body.why}\n\trequest_body {{\n\t\tmax_size {facts.body.value}\n\t}}"


def _static(facts: Facts) -> str:
    path = urlsplit(facts.site.static_url).path.strip("/")
    if facts.serves_static or not facts.site.static_root or not path:
        return ""
    return f"""\t# --no-static: Caddy serves what collectstatic wrote to STATIC_ROOT.
	handle_path /{path}/* {{
		root * {facts.site.static_root}
		file_server
	}}"""
