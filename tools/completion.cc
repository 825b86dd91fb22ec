// Completion scripts for bash, zsh and fish. Each determines the command from the words before the cursor, and then
// offers its subcommands, its flags or, after a flag, the flag's values.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "coca/base/version.h"
#include "describe.h"

namespace coca::tools {

namespace {

using Commands = std::vector<CommandDescription>;
using Takes = FlagDescription::Takes;

std::string replaced(std::string text, std::string_view what, std::string_view by) {
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size()))
    text.replace(at, what.size(), by);
  return text;
}

std::string join(const std::vector<std::string>& words) { return fmt::format("{}", fmt::join(words, " ")); }

// The first part of a description, since lists of flags have little room.
std::string brief(const std::string& text) {
  const std::string part = text.substr(0, std::min(text.find("; "), text.size()));
  constexpr size_t kMost = 70;
  if (part.size() <= kMost) return part;
  const size_t space = part.rfind(' ', kMost);
  return part.substr(0, space) + " ...";
}

// "eval ppl" becomes "_eval_ppl"; "" stays "".
std::string suffix(const std::string& path) { return path.empty() ? "" : "_" + replaced(path, " ", "_"); }

// Names of all flags, in any command, that are not followed by a value.
std::vector<std::string> switches(const Commands& commands) {
  std::set<std::string> names;
  for (const CommandDescription& command : commands)
    for (const FlagDescription& flag : command.flags)
      if (!flag.positional && flag.takes != Takes::kValue) names.insert(flag.names.begin(), flag.names.end());
  return {names.begin(), names.end()};
}

// The flags that a command accepts: its own and the program's.
std::vector<const FlagDescription*> all_flags(const Commands& commands, const CommandDescription& command) {
  std::vector<const FlagDescription*> flags;
  for (const FlagDescription& flag : command.flags) flags.push_back(&flag);
  if (!command.path.empty())
    for (const FlagDescription& flag : commands.front().flags)
      if (flag.takes == Takes::kValue)
        flags.push_back(&flag);  // leaves out --help, which is listed already, and --version
  return flags;
}

// ---- bash ----

constexpr std::string_view kBash = R"(# bash completion of coca @VERSION@, made by: coca completion bash
# shellcheck shell=bash

# Of command $1 and flag $2 ("" without a flag): names, and whether files and lists are values.
_coca_values() {
  case $1:$2 in
@VALUES@  esac
}

_coca() {
  local current=${COMP_WORDS[COMP_CWORD]} command= flag= last= word i
  local names= files= list= before= rest
  for ((i = 1; i <= COMP_CWORD; ++i)); do
    word=${COMP_WORDS[i]}
    if [[ $word == = && $last ]]; then # --flag=value is three words
      flag=$last
      ((i < COMP_CWORD)) || current=
      continue
    fi
    ((i < COMP_CWORD)) || break
    if [[ $flag ]]; then
      flag= last=
    elif [[ $word == -* ]]; then
      last=$word
      case $word in
      @SWITCHES@) ;;
      *) flag=$word ;;
      esac
    else
      last=
      case $command:$word in
      @PATHS@) command=${command:+$command }$word ;;
      esac
    fi
  done

  COMPREPLY=()
  if [[ $flag ]]; then
    _coca_values "$command" "$flag"
  elif [[ $current == -* ]]; then
    case $command in
@FLAGS@    esac
  else
    case $command in
@COMMANDS@    *) _coca_values "$command" '' ;;
    esac
  fi
  rest=$current
  if [[ $list ]]; then
    rest=${current##*,}
    before=${current%"$rest"}
    [[ $files ]] || compopt -o nospace 2>/dev/null # as a comma may follow
  fi
  [[ ! $names ]] || mapfile -t COMPREPLY < <(compgen -W "$names" -P "$before" -- "$rest")
  if [[ $files ]]; then
    compopt -o filenames 2>/dev/null
    mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -P "$before" -- "$rest")
  fi
}

complete -F _coca coca
)";

std::string bash_script(const Commands& commands) {
  // Flags of many commands with the same values share a line.
  std::map<std::string, std::vector<std::string>> patterns;
  std::string flags, inner, paths;
  for (const CommandDescription& command : commands) {
    for (const FlagDescription* flag : all_flags(commands, command)) {
      std::string values = flag->values.empty() ? "" : " names='" + join(flag->values) + "'";
      if (flag->takes == Takes::kPerhapsBool) values = " names='true false'";
      if (flag->path) values += " files=yes";
      if (values.empty()) continue;
      if (flag->list) values += " list=yes";
      for (const std::string& name : flag->names)
        patterns[values].push_back(fmt::format("'{}:{}'", command.path, flag->positional ? "" : name));
    }
    std::vector<std::string> names;
    for (const FlagDescription* flag : all_flags(commands, command))
      if (!flag->positional) names.insert(names.end(), flag->names.begin(), flag->names.end());
    flags += fmt::format("    '{}') names='{}' ;;\n", command.path, join(names));
    if (command.commands.empty()) continue;
    inner += fmt::format("    '{}') names='{}' ;;\n", command.path, join(command.commands));
    for (const std::string& name : command.commands)
      paths += fmt::format("{}'{}:{}'", paths.empty() ? "" : " | ", command.path, name);
  }
  std::string values;
  for (auto& [value, names] : patterns) {
    names.erase(std::unique(names.begin(), names.end()), names.end());
    values += fmt::format("  {})\n   {} ;;\n", fmt::join(names, " | \\\n    "), value);
  }
  std::string script = replaced(std::string(kBash), "@VALUES@", values);
  script = replaced(script, "@SWITCHES@", fmt::format("{}", fmt::join(switches(commands), " | ")));
  script = replaced(script, "@PATHS@", paths);
  script = replaced(script, "@FLAGS@", flags);
  return replaced(script, "@COMMANDS@", inner);
}

// ---- zsh ----

std::string zsh_text(const std::string& text) {  // for use inside '...[text]...'
  std::string out;
  for (const char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
    out += c;
  }
  return replaced(out, "'", "'\\''");
}

// The zsh action that completes a value: "(a b c)", "_files", ...
std::string zsh_action(const FlagDescription& flag) {
  if (flag.takes == Takes::kPerhapsBool) return "(true false)";
  const std::string names = join(flag.values);
  if (flag.path && !flag.values.empty()) return "{ compadd - " + names + "; _files }";
  if (flag.path) return flag.list ? "_sequence _files" : "_files";
  if (flag.values.empty()) return " ";
  return flag.list ? "_sequence compadd - " + names : "(" + names + ")";
}

std::string zsh_spec(const FlagDescription& flag) {
  const std::string label = zsh_text(flag.positional ? flag.names.front() : flag.names.back().substr(2));
  if (flag.positional) return fmt::format("'{}:{}:{}'", flag.list ? "*" : "", label, zsh_action(flag));
  const std::string text = "[" + zsh_text(brief(flag.text)) + "]";
  if (flag.takes == Takes::kNothing) {
    std::string specs;
    for (const std::string& name : flag.names)
      specs += fmt::format("{}'(- *){}{}'", specs.empty() ? "" : " \\\n    ", name, text);
    return specs;
  }
  const std::string front = flag.list ? "*" : "", name = flag.names.back();
  if (flag.takes == Takes::kPerhapsBool)  // the value follows without a space: --chat=false
    return fmt::format("'{}=-{}::{}:{}'", name, text, label, zsh_action(flag));
  return fmt::format("'{}{}={}:{}:{}'", front, name, text, label, zsh_action(flag));
}

const CommandDescription& named(const Commands& commands, const std::string& path) {
  return *std::ranges::find(commands, path, &CommandDescription::path);
}

std::string zsh_script(const Commands& commands) {
  std::string script = "#compdef coca\n# zsh completion of coca @VERSION@, made by: coca completion zsh\n\n";
  for (const CommandDescription& command : commands) {
    const bool inner = !command.commands.empty();
    script += fmt::format("_coca{}() {{\n", suffix(command.path));
    if (inner) script += "  local curcontext=$curcontext state line\n  typeset -A opt_args\n";
    script += inner ? "  _arguments -C" : "  _arguments";
    for (const FlagDescription* flag : all_flags(commands, command)) script += " \\\n    " + zsh_spec(*flag);
    if (!inner) {
      script += "\n}\n\n";
      continue;
    }
    script +=
        " \\\n    '1:command:->command' '*::argument:->arguments'\n  case $state in\n  command)\n    local -a "
        "commands=(";
    for (const std::string& name : command.commands) {
      const std::string path = command.path.empty() ? name : command.path + " " + name;
      script += fmt::format("\n      '{}:{}'", name, zsh_text(brief(named(commands, path).text)));
    }
    script += "\n    )\n    _describe command commands\n    ;;\n  arguments)\n    case $line[1] in\n";
    for (const std::string& name : command.commands)
      script += fmt::format("    {}) _coca{}_{} ;;\n", name, suffix(command.path), name);
    script += "    esac\n    ;;\n  esac\n}\n\n";
  }
  // If found in $fpath, the file is the body of the function. If read with source or eval, it defines the function.
  return script + "if [[ $funcstack[1] == _coca ]]; then\n  _coca \"$@\"\nelse\n  compdef _coca coca\nfi\n";
}

// ---- fish ----

constexpr std::string_view kFish = R"(# fish completion of coca @VERSION@, made by: coca completion fish

# The command in the words before the cursor: "eval ppl".
function __coca_command
    set -l command ''
    set -l flag ''
    for word in (commandline -opc)[2..-1]
        if test -n "$flag"
            set flag ''
            continue
        end
        switch $word
            case @SWITCHES@ '-*=*'
            case '-*'
                set flag $word
            case '*'
                set -l path (string trim "$command $word")
                if contains -- $path @PATHS@
                    set command $path
                end
        end
    end
    echo $command
end

function __coca_is
    test (__coca_command) = "$argv"
end

# Completes the given names after the last comma of the word at the cursor.
function __coca_list
    set -l start (commandline -ct | string replace -r '^--[^=]*=' '' | string match -r '^.*,')
    test -n "$start"; or set start ''
    printf '%s\n' $start$argv
end

# Completes files after the last comma; without a comma fish does it itself.
function __coca_files
    set -l word (commandline -ct | string replace -r '^--[^=]*=' '')
    set -l start (string match -r '^.*,' -- $word); or return
    printf '%s\n' $start(__fish_complete_path (string replace -- $start '' $word))
end

complete -c coca -f
)";

std::string fish_quoted(const std::string& text) {
  return "'" + replaced(replaced(text, "\\", "\\\\"), "'", "\\'") + "'";
}

std::string fish_flag(const FlagDescription& flag) {
  std::string out;
  if (!flag.positional)
    for (const std::string& name : flag.names)
      out += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
  if (flag.path)
    out += flag.positional ? " -F" : " -r -F";
  else if (flag.takes == Takes::kValue && !flag.positional)
    out += " -x";
  std::string values = join(flag.values);
  if (flag.takes == Takes::kPerhapsBool) values = "true false";
  if (flag.list && !values.empty()) values = "(__coca_list " + values + ")";
  if (flag.list && flag.path) values += "(__coca_files)";
  if (!values.empty()) out += " -a " + fish_quoted(values);
  return out;
}

std::string fish_script(const Commands& commands) {
  std::vector<std::string> paths, quiet;
  for (size_t i = 1; i < commands.size(); ++i) paths.push_back(fish_quoted(commands[i].path));
  for (const std::string& name : switches(commands)) quiet.push_back(fish_quoted(name));
  std::string script = replaced(replaced(std::string(kFish), "@SWITCHES@", join(quiet)), "@PATHS@", join(paths));
  for (const CommandDescription& command : commands) {
    const std::string when =
        fmt::format("complete -c coca -n '__coca_is {}'", command.path.empty() ? "\"\"" : command.path);
    for (const std::string& name : command.commands) {
      const std::string path = command.path.empty() ? name : command.path + " " + name;
      script += fmt::format("{} -a {} -d {}\n", when, name, fish_quoted(brief(named(commands, path).text)));
    }
    for (const FlagDescription* flag : all_flags(commands, command)) {
      if (flag->positional && flag->values.empty() && !flag->path) continue;
      script += fmt::format("{}{} -d {}\n", when, fish_flag(*flag), fish_quoted(brief(flag->text)));
    }
  }
  return script;
}

}  // namespace

std::string completion_script(Shell shell, const Commands& commands) {
  const std::string script = shell == Shell::kBash  ? bash_script(commands)
                             : shell == Shell::kZsh ? zsh_script(commands)
                                                    : fish_script(commands);
  return replaced(script, "@VERSION@", version());
}

}  // namespace coca::tools
