// coca/analyse/results.h - an analysis as tables for people and as JSON for programs. docs/analyse.md says what each
// figure is.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "coca/analyse/analyse.h"
#include "coca/report/table.h"

namespace coca::analyse {

report::Table layer_table(const Analysis&);    // means over the heads of each layer
report::Table course_table(const Analysis&);   // how scores run over distance, by case; rotary models
report::Table plane_table(const Analysis&);    // over all layers and heads; rotary models
report::Table borders_table(const Analysis&);  // by scaling and length; rotary models
report::Table shift_table(const Analysis&);    // CoCA: by layer and shift

// "layers", "heads" and "planes" are lists of flat objects, one per row of a table for programs; lists of numbers are
// in "distances" and "histograms". Figures that do not exist are null.
nlohmann::ordered_json to_json(const Analysis&);

// HeadStats::score_at, mean over the distances of an octave (distance_bin).
double content_score(const Analysis&, const HeadStats&, size_t bin);

// At most `most` of the numbers 0 .. count-1, evenly spread, both ends among them.
std::vector<int64_t> spread_over(int64_t count, int64_t most);
std::string percent(double share);  // "12.3 %", "-" for NaN
bool is_rotary(const Analysis&);
bool is_coca(const Analysis&);

}  // namespace coca::analyse
