"""`devgw version`: which devgw this is."""

from gateway.cli.options import OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output
from gateway.version import VERSION

app = command_app()


@app.command()
def version(output: OutputOption = Form.TABLE, quiet: QuietOption = False) -> None:
    """Print the version."""
    text = VERSION if quiet else f"devgw {VERSION}"
    Output(output).done(text, {"devgw": VERSION})
