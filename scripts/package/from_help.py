"""Writes the man page and /etc/default/configsync-server from the program's own help.

    from_help.py man|default path/to/configsync-server
"""

import re
import subprocess
import sys

FLAG = re.compile(r"^\s*(--\S+(?: \S+)?)\s{2,}(\S.*)$")

HEAD = """.TH CONFIGSYNC-SERVER 8 "" "{version}" "System administration"
.nh
.ad l
.SH NAME
{name}
.SH SYNOPSIS
.B configsync\\-server
.I command
.RI [ argument ...]
.SH DESCRIPTION
{description}
.SH COMMANDS
"""

TAIL = """.SH FILES
.TP
.I /etc/default/configsync\\-server
Settings of the packaged service, as environment variables.
.TP
.I /var/lib/configsync\\-server
The data folder of the packaged service.
.TP
.I /var/backups/configsync\\-server
Its daily backups. No package script deletes either folder.
.SH EXIT STATUS
0 for success, 2 for a wrong command line or setting, 1 for any other failure.
.SH EXAMPLES
Administer the packaged service as its own user:
.PP
.RS 4
.nf
sudo \\-u configsync CONFIGSYNC_DATA=/var/lib/configsync\\-server \\e
  configsync\\-server user add you@example.com
.fi
.RE
.SH SEE ALSO
.IR /usr/share/doc/configsync\\-server/ ,
.BR systemctl (1)
"""


def ask(binary, *arguments):
    done = subprocess.run([binary, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def commands(binary):
    """Names, in the order of the help; and what stands before and after them."""
    before, names, after = [], [], []
    for line in ask(binary, "help").splitlines():
        found = re.match(r"^  (\S+(?: \S+)?)  +\S", line)
        (names if found else after if names else before).append(found[1] if found else line)
    return " ".join(before).strip(), names, " ".join(after).strip()


def settings(binary):
    """The flags of serve: name, value, help."""
    for line in ask(binary, "serve", "--help").splitlines():
        if found := FLAG.match(line):
            flag, _, value = found[1].partition(" ")
            yield flag, value, found[2]


def roff(text):
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def details(lines):
    """Flags become tagged paragraphs, with the lines that go on below them; empty lines part text."""
    in_flag = False
    for line in lines:
        if found := FLAG.match(line):
            flag, _, value = found[1].partition(" ")
            value = f" \\fI{roff(value)}\\fR" if value else ""
            yield f".TP\n\\fB{roff(flag)}\\fR{value}\n{roff(found[2])}"
            in_flag = True
        elif in_flag and line.startswith("    "):
            yield roff(line.strip())
        elif line.strip():
            if in_flag:
                yield ".PP"
            in_flag = False
            yield roff(line.strip())
        else:
            yield ".PP"


def man(binary):
    before, names, after = commands(binary)
    text = HEAD.format(version=ask(binary, "--version").strip(), description=roff(after),
                       name=roff(before.replace(": ", " - ", 1)))
    for name in names:
        usage, _, summary, *rest = ask(binary, *name.split(), "--help").splitlines()
        summary = summary[0].upper() + summary[1:].rstrip(".") + "."
        body = "\n".join(details(rest))
        text += f".SS {roff(name)}\n.B {roff(usage)}\n.PP\n{roff(summary)}\n.PP\n{body}\n"
    text = re.sub(r"\n{2,}", "\n", text + TAIL)
    return re.sub(r"(?:\.PP\n)+(?=\.(?:PP|TP|SS|SH))", "", text)


def default(binary):
    """Every setting with its default, commented out."""
    text = "# Settings of configsync-server.service. After a change: systemctl restart configsync-server\n"
    for flag, value, what in settings(binary):
        # The folder is the unit's; a token that --init-user prints would stay in the journal.
        if flag in ("--data", "--init-user"):
            continue
        known = re.search(r" \[(.*)\]$", what)
        variable = "CONFIGSYNC" + flag.upper().replace("--", "_").replace("-", "_")
        text += f"\n# {what}\n#{variable}={known[1] if known else value or 1}\n"
    return text


if __name__ == "__main__":
    print({"man": man, "default": default}[sys.argv[1]](sys.argv[2]), end="")
