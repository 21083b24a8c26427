# mypy: ignore-errors
"""CHAPPS 0.5, run by the Python of its own environment: see chapps05.py. It imports nothing of this project.

chapps05_program.py fill                 create the tables, and the rows that standard input has as JSON
chapps05_program.py serve SECONDS        answer policy requests, with a clock that is behind by so much
chapps05_program.py left USER ...        print what is left of quotas, as JSON
"""

import asyncio
import json
import logging
import sys
import time

# It logs to syslog, which is not there.
logging.raiseExceptions = False

import chapps.policy  # noqa: E402
from chapps import dbmodels  # noqa: E402
from chapps.dbsession import sessionmaker, sql_engine  # noqa: E402
from chapps.policy import GreylistingPolicy, OutboundQuotaPolicy, SenderDomainAuthPolicy  # noqa: E402
from chapps.switchboard import GreylistingHandler, OutboundMultipolicyHandler  # noqa: E402


class Behind:
    """The module ``time`` for the policies, with another time."""

    def __init__(self, seconds):
        self.time = lambda: time.time() - seconds

    def __getattr__(self, name):
        return getattr(time, name)


def fill(rows):
    dbmodels.DB_Base.metadata.create_all(sql_engine)
    with sessionmaker(sql_engine)() as session:
        quotas = {name: dbmodels.Quota(name=name, quota=number) for name, number in rows["quotas"].items()}
        domains = {name: dbmodels.Domain(name=name, **flags) for name, flags in rows["domains"].items()}
        emails = {name: dbmodels.Email(name=name) for name in rows["emails"]}
        for name, links in rows["users"].items():
            user = dbmodels.User(name=name)
            if links["quota"]:
                user.quota = quotas[links["quota"]]
            user.domains = [domains[each] for each in links["domains"]]
            user.emails = [emails[each] for each in links["emails"]]
            session.add(user)
        session.add_all([*quotas.values(), *domains.values(), *emails.values()])
        session.commit()


async def serve(seconds):
    chapps.policy.time = Behind(seconds)
    outbound = OutboundMultipolicyHandler([SenderDomainAuthPolicy(), OutboundQuotaPolicy()])
    servers = []
    for handler in (outbound, GreylistingHandler(GreylistingPolicy())):
        place = handler.listen_address, handler.listen_port
        servers.append(await asyncio.start_server(handler.async_policy_handler(), *place))
    await asyncio.gather(*(server.serve_forever() for server in servers))


def left(users):
    policy = OutboundQuotaPolicy()
    print(json.dumps({user: policy.current_quota(user)[0] for user in users}))


if sys.argv[1] == "fill":
    fill(json.load(sys.stdin))
elif sys.argv[1] == "serve":
    asyncio.run(serve(float(sys.argv[2])))
else:
    left(sys.argv[2:])
