"""The version of devgw, in a module that imports nothing so that `devgw --version` stays quick."""

VERSION = "0.1.0"
