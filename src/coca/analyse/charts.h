// coca/analyse/charts.h - the charts of an analysis' report; what each shows is said by its caption in report.cc.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/analyse/analyse.h"
#include "coca/report/chart.h"

namespace coca::analyse {

report::Chart angle_chart(const Analysis&);        // density of initial angles, of some planes
report::Chart tau_chart(const Analysis&);          // length of the anomaly by plane
report::Chart score_chart(const Analysis&);        // score against distance, measured and of all pairs' content
report::Chart far_score_chart(const Analysis&);    // the latter to many times the trained length, by scaling
report::Chart unseen_chart(const Analysis&);       // share of unseen distances by length and scaling
report::Chart compression_chart(const Analysis&);  // by plane and scaling, at the largest multiple
report::Chart distance_chart(const Analysis&);     // attention by distance, of some layers
report::Chart shift_chart(const Analysis&);        // CoCA: change of scores under shifts, by layer

using HeadFigure = double (*)(const HeadStats&);
report::HeatMap head_map(const Analysis&, const std::string& title, HeadFigure);  // layers down, heads across; 0 to 1

}  // namespace coca::analyse
