"""`livesr token`: a random token with the lines for the settings, or a JWT by their secret."""

import argparse
from pathlib import Path

from server.gateway.auth import jwt
from server.gateway.auth.tokens import digest, new_token
from server.settings import Token, check_table
from server.settings.read import load

DAY_S = 86_400


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "scopes",
        nargs="+",
        metavar="SCOPE",
        help="admin, metrics, view:ID or publish:ID; the ID * is every stream",
    )
    parser.add_argument("--name", default="token", help="whose it is, for the log")
    parser.add_argument("--jwt", action="store_true", help="a JWT, signed with auth.jwt.secret_file")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file (TOML); for --jwt")
    parser.add_argument("--days", type=float, default=1.0, help="how long a JWT is valid (default: 1)")


def run(args: argparse.Namespace) -> int:
    token = "" if args.jwt else new_token()
    tables = {"name": args.name, "sha256": digest(token), "scopes": args.scopes}
    settings = check_table(Token, tables, "command line")
    if not args.jwt:
        print(f"{token}\n\n# For the settings, which do not hold the token itself:")
        print(_toml(settings))
        return 0
    if not 0 < args.days <= 3650:
        raise ValueError(f"--days {args.days:g}: must be above 0 and at most 3650")
    auth = load(args.config).auth
    if auth is None or auth.jwt is None:
        raise ValueError("--jwt needs settings that have [auth.jwt] secret_file: --config FILE")
    lifetime_s = round(args.days * DAY_S)
    print(jwt.sign(auth.jwt, subject=settings.name, scopes=settings.scopes, lifetime_s=lifetime_s))
    return 0


def _toml(token: Token) -> str:
    scopes = ", ".join(f'"{scope}"' for scope in token.scopes)
    return f'[[auth.tokens]]\nname = "{token.name}"\nsha256 = "{token.sha256}"\nscopes = [{scopes}]'
