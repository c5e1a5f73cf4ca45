"""`devgw audit`: what was done, whether the record of it is whole, and who could have done what."""

from gateway.cli.audit_chain import head, index, prune, verify
from gateway.cli.audit_log import log
from gateway.cli.audit_reports import exposure, review
from gateway.cli.options import command_app

app = command_app(help="Read and prove the journal; review who may reach what.")
for command in (log, verify, head, review, exposure, prune, index):
    app.command()(command)
