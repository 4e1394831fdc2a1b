"""Every error that weightsmith knows, each with its exit code, its message and its hint.

Raise the narrowest class and give it values, as in ``ShardEmpty(file=path)``: the class holds the
sentence that they are put into. The class name in kebab-case is the error's reference
(``ShardTruncated`` is ``shard-truncated``), which ``weightsmith help`` and
``docs/reference/errors.md`` explain with the class's docstring.

    WeightsmithError
      UsageFault      2   the command line asks for something that cannot be done
      SourceFault     3   a source is missing or unreadable
      AccessFault     4   login needed, or gated
      TemporaryFault  5   try again
      DamagedInput    6   an input is damaged or unsafe
      Mismatch        7   inputs do not belong together
      NoRoom          8   not enough disk or memory
      InTheWay        9   the output exists, or another run holds it
      DamagedOutput  10   our own output failed verification

Messages and hints name an argument as the library does, in backticks: ```base=SOURCE```. The
command line prints it as its own flag, ``--base SOURCE`` (``cli/flags.py``).

Each exit code has a module of its own; all of them are imported from here.
"""

from weightsmith.errors.access import *
from weightsmith.errors.damaged import *
from weightsmith.errors.fault import *
from weightsmith.errors.in_the_way import *
from weightsmith.errors.mismatch import *
from weightsmith.errors.output import *
from weightsmith.errors.room import *
from weightsmith.errors.run_end import *
from weightsmith.errors.source import *
from weightsmith.errors.temporary import *
from weightsmith.errors.usage import *
