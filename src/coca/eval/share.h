// coca/eval/share.h - work dealt out to ranks in turn: its rounds, and what they found out, to all.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "coca/base/stop.h"
#include "coca/dist/communicator.h"

namespace coca::eval {

// A round of such work: this rank's part, which sends no messages. All ranks throw, so that what earlier rounds found
// stays the same on all of them: kInterrupted with the text of `stopped` where one was asked to stop, or the error of
// the lowest rank that failed.
inline void do_round(dist::Communicator& ranks, const std::function<std::string()>& stopped,
                     const std::function<void()>& part) {
  dist::together(ranks, [&] { run_interruptible(stopped, part); });
}

// Batch b was rank b % K's: (item->*result) of its items is written on all others. One message to each.
template <typename Item, typename Value>
void share_batches(dist::Communicator& ranks, std::span<const std::vector<Item*>> batches, Value Item::*result) {
  std::vector<Value> values;
  std::vector<size_t> owner;
  for (size_t b = 0; b < batches.size(); ++b)
    for (const Item* item : batches[b]) {
      values.push_back(item->*result);
      owner.push_back(b % static_cast<size_t>(ranks.size()));
    }
  dist::share(ranks, std::span(values), [&](size_t i) { return owner[i]; });
  auto value = values.begin();
  for (const std::vector<Item*>& batch : batches)
    for (Item* item : batch) item->*result = *value++;
}

}  // namespace coca::eval
