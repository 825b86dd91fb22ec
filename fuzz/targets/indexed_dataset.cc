// An indexed dataset: PREFIX.idx and PREFIX.bin (parts 0 and 1).
// SPDX-License-Identifier: Apache-2.0
#include "coca/data/indexed_dataset.h"
#include "support/harness.h"

COCA_FUZZ_TARGET({.per_byte = 16}) {
  using namespace coca;
  const auto parts = fuzz::parts_of(input);
  fuzz::Folder& folder = fuzz::Folder::instance();
  folder.clear();
  folder.write("x.idx", fuzz::part(parts, 0));
  folder.write("x.bin", fuzz::part(parts, 1));
  const data::IndexedDataset dataset(folder.path() / "x");
  int64_t covered = 0;
  for (int64_t i = 0; i < dataset.documents(); ++i) {
    const std::pair<int64_t, int64_t> bounds = dataset.document(i);
    const int64_t begin = bounds.first, end = bounds.second;  // a lambda cannot capture structured bindings
    fuzz::require(begin == covered && begin <= end && end <= dataset.tokens(), "a document outside the data");
    std::vector<int32_t> ids(static_cast<size_t>(end - begin));
    fuzz::attempt([&] {
      dataset.read(begin, ids, 257);
      for (const int32_t id : ids) fuzz::require(id >= 0 && id < 257, "an id beyond the vocabulary");
    });
    covered = end;
  }
  fuzz::require(covered == dataset.tokens(), "tokens of no document");
}
