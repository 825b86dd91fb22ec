// coca/io/manifest.h - sizes and checksums of a folder's files, to detect truncated files and flipped bits.
// Layout: docs/formats.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

namespace coca::io {

inline constexpr const char* kManifestName = "manifest.json";

// Reads every file of the folder (not of folders in it) and writes manifest.json beside them.
void write_manifest(const std::filesystem::path& dir);
// Error kBadFile naming the first file that is missing, has another size or another checksum. A folder without a
// manifest, as versions before it wrote them, passes.
void check_manifest(const std::filesystem::path& dir);

}  // namespace coca::io
