#include "cli.h"
namespace coca::tools { void add_generate(CLI::App&, Action*) {} }
