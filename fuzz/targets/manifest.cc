// manifest.json of a checkpoint (part 0) and one file that it may list (part 1).
// SPDX-License-Identifier: Apache-2.0
#include "coca/io/manifest.h"
#include "support/harness.h"

COCA_FUZZ_TARGET({.per_byte = 256}) {
  using namespace coca;
  const auto parts = fuzz::parts_of(input);
  fuzz::Folder& folder = fuzz::Folder::instance();
  folder.clear();
  folder.write(io::kManifestName, fuzz::part(parts, 0));
  folder.write("a.json", fuzz::part(parts, 1));
  io::check_manifest(folder.path());
}
