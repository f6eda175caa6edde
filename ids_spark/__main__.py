"""`python -m ids_spark` is the command `ids-spark`."""

import sys

from ids_spark.command.main import main

if __name__ == "__main__":
    sys.exit(main())
