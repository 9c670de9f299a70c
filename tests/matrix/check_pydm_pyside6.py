"""PyDM widgets on Channel Access as in check_pydm.py, on PySide6; its end counts as well."""

import sys

import check_pydm

if __name__ == "__main__":
    sys.exit(check_pydm.main("pyside6"))
