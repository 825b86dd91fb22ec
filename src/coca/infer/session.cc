// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/session.h"

#include <algorithm>
#include <utility>

#include "coca/base/count.h"

namespace coca::infer {

namespace {

// Checks the request before a sequence is created for it.
Request checked(Request r, const model::ModelSpec& spec) {
  COCA_CHECK(!r.prompt.empty(), "the prompt is empty; give at least one token");
  for (const int32_t id : r.prompt)
    COCA_CHECK(id >= 0 && id < spec.V, "the prompt holds id {}; the model's vocabulary has ids 0 to {}", id,
               spec.V - 1);
  COCA_CHECK(r.max_new_tokens >= 0, "max-new-tokens {} must be at least 0", r.max_new_tokens);
  check_sampling(r.sampling);
  return r;
}

int64_t length_of(const std::vector<int32_t>& ids) { return static_cast<int64_t>(ids.size()); }

SequenceOptions sequence_options(const Request& r, const SessionOptions& o) {
  return {.dynamic_base = o.dynamic_base, .planned_length = length_of(r.prompt) + r.max_new_tokens};
}

}  // namespace

Session::Session(BatchDecoder& decoder, Request request, const SessionOptions& options)
    : Session(decoder, request, decoder.sequence(sequence_options(checked(request, decoder.spec()), options)),
              options) {}

Session::Session(BatchDecoder& decoder, Request request, Sequence begun, const SessionOptions& options)
    : decoder_(decoder),
      request_(checked(std::move(request), decoder.spec())),
      options_(options),
      sequence_(std::move(begun)),
      rng_(request_.seed, 0x9e4e),
      done_(sequence_.length()),
      seen_(request_.prompt),
      logits_(static_cast<size_t>(decoder.spec().V)) {
  COCA_CHECK(options.prefill_tokens >= 1, "prefill-tokens {} must be at least 1", options.prefill_tokens);
  COCA_CHECK(in_prompt(), "the sequence already holds {}, but the prompt has only {}; leave at least its last token",
             counted(done_, "token"), length_of(request_.prompt));
}

// The tokens to append in this step; empty if the logits of the next token are known.
std::optional<Piece> Session::next_piece() {
  const int64_t length = length_of(request_.prompt);
  if (in_prompt()) {
    const int64_t count = std::min(options_.prefill_tokens, length - done_);
    return Piece{.sequence = &sequence_,
                 .ids = std::span(request_.prompt).subspan(static_cast<size_t>(done_), static_cast<size_t>(count)),
                 .end = length};
  }
  if (ids_.empty()) return std::nullopt;
  return Piece{.sequence = &sequence_, .ids = {&ids_.back(), 1}};
}

void Session::sample_next() {
  penalize_repetition(logits_, seen_, request_.sampling.repetition_penalty);
  const int32_t id = sample(logits_, request_.sampling, rng_);
  if (std::ranges::find(request_.stop_ids, id) != request_.stop_ids.end()) {
    finish_ = Finish::kStopId;
    return;
  }
  ids_.push_back(id);
  seen_.push_back(id);
  if (length_of(ids_) == request_.max_new_tokens) finish_ = Finish::kLength;
}

void Session::step(Context& cx, std::span<Session* const> sessions) {
  std::vector<Session*> running, wanting;  // wanting: the sessions that need logits of this step
  std::vector<Piece> pieces;
  std::vector<int64_t> wanted;
  for (Session* s : sessions) {
    COCA_CHECK(&s->decoder_ == &sessions.front()->decoder_, "all sessions of a step must have the same decoder");
    if (s->finished()) continue;
    running.push_back(s);
    const std::optional<Piece> piece = s->next_piece();
    if (!piece) continue;
    const bool last = s->sequence_.length() + static_cast<int64_t>(piece->ids.size()) >= length_of(s->request_.prompt);
    if (last && s->request_.max_new_tokens > 0) {
      wanted.push_back(static_cast<int64_t>(pieces.size()));
      wanting.push_back(s);
    }
    pieces.push_back(*piece);
  }
  if (!pieces.empty()) {
    BatchDecoder& decoder = sessions.front()->decoder_;
    decoder.append(cx, pieces);
    if (!wanted.empty()) {
      const TensorRef logits = decoder.last_logits(cx, wanted);
      for (size_t i = 0; i < wanting.size(); ++i)
        std::copy_n(logits.as<float>() + static_cast<int64_t>(i) * logits.size(1), logits.size(1),
                    wanting[i]->logits_.begin());
    }
  }
  for (Session* s : running) {
    if (!s->in_prompt()) {
      try {
        s->sample_next();
      } catch (...) {
        s->error_ = std::current_exception();
        s->finish_ = Finish::kFailed;
      }
      continue;
    }
    s->done_ = s->sequence_.length();
    if (!s->in_prompt() && s->request_.max_new_tokens == 0) s->finish_ = Finish::kLength;
  }
}

std::optional<int32_t> Session::step(Context& cx) {
  const size_t before = ids_.size();
  Session* const alone = this;
  step(cx, std::span(&alone, 1));
  if (ids_.size() == before && error_) std::rethrow_exception(error_);
  return ids_.size() > before ? std::optional(ids_.back()) : std::nullopt;
}

}  // namespace coca::infer
