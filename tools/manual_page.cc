// The manual page, generated from the descriptions that --help prints.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "coca/base/version.h"
#include "describe.h"

namespace coca::tools {

namespace {

// Escapes text so that roff does not find requests or escapes in it.
std::string roff(std::string_view text) {
  std::string out;
  bool at_start = true;
  for (const char c : text) {
    if (at_start && (c == '.' || c == '\'')) out += "\\&";
    at_start = c == '\n';
    if (c == '\\')
      out += "\\e";
    else if (c == '-')
      out += "\\-";
    else if (c == '\'')
      out += "\\(aq";
    else if (c == '~')
      out += "\\(ti";
    else if (c == '^')
      out += "\\(ha";
    else if (c == '`')
      out += "\\(ga";
    else
      out += c;
  }
  return out;
}

std::string flag_entry(const FlagDescription& flag) {
  std::string names;
  for (const std::string& name : flag.names)
    names += fmt::format("{}\\fB{}\\fR", names.empty() ? "" : ", ", roff(name));
  std::string type = flag.positional ? "" : flag.type;
  if (!type.empty()) type = " " + roff(type + (flag.fallback.empty() ? "" : "=" + flag.fallback));
  return ".TP\n" + names + type + "\n" + roff(flag.text) + "\n";
}

// Keeps the line breaks of a footer, whose lines are commands.
std::string footer_text(const std::string& footer) {
  return footer.empty() ? "" : ".PP\n.nf\n" + roff(footer) + "\n.fi\n";
}

std::string command_section(const CommandDescription& command) {
  std::string out = fmt::format(".SS coca {}\n{}.\n", roff(command.path), roff(command.text)), group;
  std::string usage = "[OPTIONS]";
  for (const FlagDescription& flag : command.flags)
    if (flag.positional) usage += fmt::format(" [{}{}]", flag.names.front(), flag.list ? "..." : "");
  out += fmt::format(".PP\n.B coca {}\n{}\n", roff(command.path), roff(usage));
  for (const FlagDescription& flag : command.flags) {
    if (flag.takes == FlagDescription::Takes::kNothing) continue;  // --help
    if (!flag.positional && flag.group != group) {
      group = flag.group;
      out += fmt::format(".PP\n{}:\n", roff(group));
    }
    out += flag_entry(flag);
  }
  return out + footer_text(command.footer);
}

constexpr std::string_view kEnd = R"(.SH EXIT STATUS
.TP
0
All is done.
.TP
1
Something failed (a file is missing or is not what it should be, a disk is full), or a check did not hold.
.TP
2
An option is wrong, on the command line or in the file that
.B \-\-config
names.
.TP
130
The command was interrupted; what it can continue from is saved.
.TP
141
Nobody reads standard output any more.
.SH ENVIRONMENT
.TP
.B OMP_NUM_THREADS
Threads to use, as
.BR \-\-threads .
.TP
.BR COCA_CPU_TARGET ", " COCA_FORCE_IMPL
As
.B \-\-cpu\-target
and
.BR \-\-force\-impl .
.TP
.B COLUMNS
Width of help texts and tables.
.TP
.B NO_COLOR
No colours.
.SH SEE ALSO
.BR mpirun (1),
.BR gnuplot (1)
.PP
The guide and the formats of files are in the folder share/doc/coca/docs of the installation.
)";

}  // namespace

std::string manual_page(const std::vector<CommandDescription>& commands) {
  const CommandDescription& program = commands.front();
  std::string out = fmt::format(".TH COCA 1 \"\" \"coca {}\" \"User Commands\"\n", version());
  const size_t dash = program.text.find(" - ");
  const std::string name = program.text.substr(program.text.find(": ") + 2), about = program.text.substr(dash + 3);
  out += ".SH NAME\ncoca \\- " + roff(about) + " models with Collinear Constrained Attention\n";
  out += ".SH SYNOPSIS\n.B coca\nCOMMAND [OPTIONS]\n.br\n.B coca help\nCOMMAND\n.SH DESCRIPTION\n" + roff(name) + ".\n";
  out += ".SH OPTIONS\nEvery command takes these options, before or behind its own.\n";
  for (const FlagDescription& flag : program.flags) out += flag_entry(flag);
  out += ".SH COMMANDS\n";
  for (const CommandDescription& command : commands)
    if (!command.path.empty() && command.commands.empty()) out += command_section(command);
  return out + std::string(kEnd);
}

}  // namespace coca::tools
