// coca/eval/share.h - what ranks have found out about the batches dealt out to them in turn, to all.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

#include "coca/dist/communicator.h"

namespace coca::eval {

// Batch b was rank b % K's: (item->*result) of its items is written on all others. One message to each.
template <typename Item, typename Value>
void share_batches(dist::Communicator& ranks, std::span<const std::vector<Item*>> batches, Value Item::*result) {
  std::vector<Value> values;
  std::vector<size_t> owner;
  for (size_t b = 0; b < batches.size(); ++b)
    for (const Item* item : batches[b]) values.push_back(item->*result), owner.push_back(b % static_cast<size_t>(ranks.size()));
  dist::share(ranks, std::span(values), [&](size_t i) { return owner[i]; });
  auto value = values.begin();
  for (const std::vector<Item*>& batch : batches)
    for (Item* item : batch) item->*result = *value++;
}

}  // namespace coca::eval
