#include "cli.h"
namespace coca::tools { void add_study(CLI::App&, Action*) {} }
