// SPDX-License-Identifier: Apache-2.0
#include "coca/base/version.h"

namespace coca {

std::string_view version() { return COCA_VERSION; }
std::string_view git_commit() { return COCA_GIT_COMMIT; }
std::string_view build_type() { return COCA_BUILD_TYPE; }

}  // namespace coca
