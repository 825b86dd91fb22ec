// coca/text/jinja_interpreter.cc - see jinja_interpreter.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/jinja_interpreter.h"

#include <algorithm>
#include <cmath>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/text/jinja_builtins.h"

namespace coca::text::jinja {

namespace {

constexpr int64_t kMaxSteps = 5'000'000;  // expressions and statements run, and 16 bytes of text made
constexpr int64_t kMaxRange = 100'000;    // as in Jinja's sandbox
constexpr int kMaxCalls = 30;             // macros and recursive loops within each other

using Kind = Expression::Kind;
using What = Statement::Kind;

struct Scope {
  Dict variables;
  Scope* outer = nullptr;
  const Statement* loop = nullptr;  // whose turn it is
  int64_t depth = 0;                // of a recursive loop
};

enum class Flow { kOn, kBreak, kContinue };

class Interpreter {
 public:
  Interpreter(const Dict& variables, const RunOptions& options, const std::string& source, const std::string& origin)
      : options_(options), source_(source), origin_(origin) {
    globals_.variables = variables;
    top_.outer = &globals_;
  }

  Output run(const Body& body) {
    top_level_ = &output_.text;
    begin_comparing();
    run_body(body, top_, output_.text);
    return std::move(output_);
  }

 private:
  [[noreturn]] void wrong(size_t at, std::string_view what) const {
    fail(ErrorKind::kBadFile, "{}: {}", place_of(source_, origin_, at), what);
  }
  // Errors of builtins do not know where they happened.
  template <typename Action>
  auto placed(size_t at, const Action& action) const {
    try {
      return action();
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kBadFile || std::string_view(error.what()).starts_with(origin_)) throw;
      wrong(at, error.what());
    }
  }
  void step(size_t at, size_t bytes = 0) {
    steps_ += 1 + static_cast<int64_t>(bytes / 16);
    if (steps_ > kMaxSteps) wrong(at, fmt::format("takes more than {} steps", kMaxSteps));
    if (bytes > kMaxText)
      wrong(at, fmt::format("makes a text of {}; at most {}", coca::counted(bytes, "byte"), grouped(kMaxText)));
  }
  Value text_value(size_t at, std::string text) {
    step(at, text.size());
    return text;
  }

  // --- statements

  Flow run_body(const Body& body, Scope& scope, std::string& out) {
    for (const auto& statement : body)
      if (const Flow flow = run_statement(*statement, scope, out); flow != Flow::kOn) return flow;
    return Flow::kOn;
  }

  Flow run_statement(const Statement& s, Scope& scope, std::string& out) {
    step(s.at);
    switch (s.kind) {
      case What::kText: write(s.at, s.text, out); break;
      case What::kPrint: write(s.at, to_text(evaluate(*s.value, scope)), out); break;
      case What::kIf: return run_if(s, scope, out);
      case What::kFor: run_for(s, evaluate(*s.value, scope), scope, out, 0); break;
      case What::kWith: return run_with(s, scope, out);
      case What::kFilter: write(s.at, to_text(block_value(s, scope)), out); break;
      case What::kCall: run_call(s, scope, out); break;
      case What::kSet: run_set(s, scope); break;
      case What::kMacro: scope.variables.set(s.macro->name, Callable{s.macro->name, nullptr, s.macro.get()}); break;
      case What::kBreak: return Flow::kBreak;
      case What::kContinue: return Flow::kContinue;
      case What::kGeneration: {
        const size_t begin = out.size();
        const Flow flow = run_body(s.bodies[0], scope, out);
        if (&out == top_level_) output_.generations.emplace_back(begin, out.size());
        return flow;
      }
    }
    return Flow::kOn;
  }

  void write(size_t at, const std::string& text, std::string& out) {
    step(at, text.size());
    out += text;
    if (out.size() > kMaxText) wrong(at, fmt::format("writes more than {} bytes", kMaxText));
  }

  Flow run_if(const Statement& s, Scope& scope, std::string& out) {
    for (size_t i = 0; i < s.conditions.size(); ++i)
      if (evaluate(*s.conditions[i], scope).truth()) return run_body(s.bodies[i], scope, out);
    if (s.bodies.size() > s.conditions.size()) return run_body(s.bodies.back(), scope, out);
    return Flow::kOn;
  }

  void assign(const Statement& s, const Value& value, Scope& scope) {
    if (s.names.size() == 1) return scope.variables.set(s.names[0], value);
    const List items = placed(s.at, [&] { return iterate(value); });
    if (items.size() != s.names.size())
      wrong(s.at,
            fmt::format("{} for {}", coca::counted(items.size(), "value"), coca::counted(s.names.size(), "name")));
    for (size_t i = 0; i < items.size(); ++i) scope.variables.set(s.names[i], items[i]);
  }

  Flow run_with(const Statement& s, Scope& scope, std::string& out) {
    Scope inner{{}, &scope};
    for (size_t i = 0; i < s.names.size(); ++i) inner.variables.set(s.names[i], evaluate(*s.conditions[i], scope));
    return run_body(s.bodies[0], inner, out);
  }

  // The text of a block through its filters.
  Value block_value(const Statement& s, Scope& scope) {
    std::string text;
    Scope inner{{}, &scope};
    run_body(s.bodies[0], inner, text);
    inner.variables.set(kBlockText, text_value(s.at, std::move(text)));
    return evaluate(*s.value, inner);
  }

  // caller() sees what is visible here. Its variables are copied: it may outlive the scope.
  void run_call(const Statement& s, Scope& scope, std::string& out) {
    Dict visible;
    for (const Scope* from = &scope; from != nullptr && from != &top_; from = from->outer)
      for (const auto& [name, value] : from->variables.items)
        if (!visible.find(name)) visible.set(name, value);
    Scope inner{{}, &scope};
    const auto closure = std::make_shared<const Value>(placed(s.at, [&] { return Value(std::move(visible)); }));
    inner.variables.set("caller", Callable{"caller", closure, s.macro.get()});
    const Value made = call(*s.value, inner, inner.variables.find("caller"));
    write(s.at, to_text(made), out);
  }

  void run_for(const Statement& s, const Value& iterated, Scope& scope, std::string& out, int64_t depth) {
    List items = placed(s.at, [&] { return iterate(iterated); });
    step(s.at, items.size() * 16);
    if (s.condition) {
      List kept;
      for (const Value& item : items) {
        Scope inner{{}, &scope};
        assign(s, item, inner);
        if (evaluate(*s.condition, inner).truth()) kept.push_back(item);
      }
      items = std::move(kept);
    }
    for (size_t i = 0; i < items.size(); ++i) {
      step(s.at);
      Scope inner{{}, &scope, &s, depth};
      inner.variables.set("loop", loop_of(items, i, depth));
      assign(s, items[i], inner);
      if (run_body(s.bodies[0], inner, out) == Flow::kBreak) break;
    }
    if (items.empty() && s.bodies.size() > 1) {
      Scope inner{{}, &scope};
      run_body(s.bodies[1], inner, out);
    }
  }

  // loop(items) within a recursive loop.
  Value recurse(const Expression& e, Scope& scope) {
    for (Scope* from = &scope; from != nullptr; from = from->outer) {
      if (from->loop == nullptr) continue;
      if (from->loop->text != "recursive") wrong(e.at, "loop() needs {% for ... recursive %}");
      if (e.arguments.size() != 1) wrong(e.at, "loop() takes one argument");
      if (++calls_ > kMaxCalls) wrong(e.at, fmt::format("loops call themselves more than {} deep", kMaxCalls));
      std::string text;
      run_for(*from->loop, evaluate(*e.arguments[0].value, scope), *from->outer, text, from->depth + 1);
      --calls_;
      return text_value(e.at, std::move(text));
    }
    wrong(e.at, "loop() outside of a loop");
  }

  static Value loop_of(const List& items, size_t i, int64_t depth) {
    const int64_t at = static_cast<int64_t>(i), size = std::ssize(items);
    Dict loop;
    loop.items = {{"index", at + 1},
                  {"index0", at},
                  {"first", at == 0},
                  {"last", at + 1 == size},
                  {"length", size},
                  {"revindex", size - at},
                  {"revindex0", size - at - 1},
                  {"depth", depth + 1},
                  {"depth0", depth},
                  {"cycle", Callable{"cycle", std::make_shared<const Value>(at), nullptr}}};
    if (i > 0) loop.items.emplace_back("previtem", items[i - 1]);
    if (i + 1 < items.size()) loop.items.emplace_back("nextitem", items[i + 1]);
    return loop;
  }

  void run_set(const Statement& s, Scope& scope) {
    Value value = s.bodies.empty() ? evaluate(*s.value, scope) : block_value(s, scope);
    if (s.attribute.empty()) return assign(s, value, scope);
    const Value* target = look_up(s.names[0], scope);
    Dict* dict = target ? target->mutable_dict() : nullptr;
    if (dict == nullptr || !dict->is_namespace) wrong(s.at, fmt::format("\"{}\" is no namespace", s.names[0]));
    // A namespace that holds itself would never be freed.
    if (value.dict() && value.dict()->is_namespace) wrong(s.at, "a namespace within a namespace is not supported");
    if (value.callable() && value.callable()->self) wrong(s.at, "a function within a namespace is not supported");
    dict->set(s.attribute, std::move(value));
  }

  // --- expressions

  static const Value* look_up(std::string_view name, const Scope& scope) {
    for (const Scope* s = &scope; s != nullptr; s = s->outer)
      if (const Value* found = s->variables.find(name)) return found;
    return nullptr;
  }

  Value evaluate(const Expression& e, Scope& scope) {
    step(e.at);
    switch (e.kind) {
      case Kind::kLiteral: return e.value;
      case Kind::kName: return name_value(e, scope);
      case Kind::kList: {
        List list;
        for (const auto& part : e.parts) list.push_back(evaluate(*part, scope));
        return placed(e.at, [&] { return e.name.empty() ? Value(std::move(list)) : Value::tuple(std::move(list)); });
      }
      case Kind::kDict: return dict_value(e, scope);
      case Kind::kAttribute: {
        const Value object = evaluate(*e.parts[0], scope);
        return placed(e.at, [&] { return attribute_of(object, e.name); });
      }
      case Kind::kItem: {
        const Value object = evaluate(*e.parts[0], scope), key = evaluate(*e.parts[1], scope);
        Value item = placed(e.at, [&] { return item_of(object, key); });
        if (e.parts[0]->kind == Kind::kName) item.name_list(e.parts[0]->name);
        return item;
      }
      case Kind::kSlice: {
        const Value object = evaluate(*e.parts[0], scope);
        Value bounds[3];
        for (size_t i = 0; i < 3; ++i)
          if (e.parts[i + 1]) bounds[i] = evaluate(*e.parts[i + 1], scope);
        return placed(e.at, [&] { return slice_of(object, bounds[0], bounds[1], bounds[2]); });
      }
      case Kind::kCall: return call(e, scope);
      case Kind::kFilter: {
        const Value object = counted(e.at, evaluate(*e.parts[0], scope));
        const Arguments arguments = arguments_of(e, scope);
        return counted(e.at, placed(e.at, [&] { return apply_filter(e.name, object, arguments); }));
      }
      case Kind::kTest: {
        const Value object = evaluate(*e.parts[0], scope);
        const Arguments arguments = arguments_of(e, scope);
        return placed(e.at, [&] { return apply_test(e.name, object, arguments); }) != e.negated;
      }
      case Kind::kUnary: return unary(e, scope);
      case Kind::kBinary: return binary(e, scope);
      case Kind::kCompare: return compare(e, scope);
      case Kind::kConditional: {
        if (evaluate(*e.parts[0], scope).truth()) return evaluate(*e.parts[1], scope);
        return e.parts[2] ? evaluate(*e.parts[2], scope) : Value(Undefined{"else"});
      }
    }
    wrong(e.at, "an expression of no kind");
  }

  Value counted(size_t at, Value value) {
    if (const auto* text = value.string()) step(at, text->size());
    if (const auto* list = value.list()) step(at, list->size() * 16);
    return value;
  }

  Value name_value(const Expression& e, const Scope& scope) const {
    if (const Value* found = look_up(e.name, scope)) return *found;
    for (const char* function : {"range", "namespace", "raise_exception", "strftime_now", "dict"})
      if (e.name == function) return Callable{e.name, nullptr, nullptr};
    return Undefined{e.name, true};
  }

  Value dict_value(const Expression& e, Scope& scope) {
    Dict dict;
    for (size_t i = 0; i < e.parts.size(); i += 2) {
      const Value key = evaluate(*e.parts[i], scope);
      dict.set(placed(e.at, [&] { return dict_key(key); }), evaluate(*e.parts[i + 1], scope));
    }
    return placed(e.at, [&] { return Value(std::move(dict)); });
  }

  Arguments arguments_of(const Expression& e, Scope& scope) {
    Arguments out;
    for (const Argument& argument : e.arguments) {
      Value value = evaluate(*argument.value, scope);
      if (argument.name.empty()) {
        out.positional.push_back(std::move(value));
      } else if (argument.name == "*") {
        for (Value& item : placed(e.at, [&] { return iterate(value); })) out.positional.push_back(std::move(item));
      } else if (argument.name == "**") {
        if (!value.dict()) wrong(e.at, fmt::format("** of {}; expected a dict", value.described()));
        for (const auto& [key, item] : value.dict()->items) out.named.emplace_back(key, item);
      } else
        out.named.emplace_back(argument.name, std::move(value));
    }
    return out;
  }

  // `caller` is given by {% call %} alone.
  Value call(const Expression& e, Scope& scope, const Value* caller = nullptr) {
    if (e.parts[0]->kind == Kind::kName && e.parts[0]->name == "loop") return recurse(e, scope);
    const Value function = evaluate(*e.parts[0], scope);
    const Callable* callable = function.callable();
    if (callable == nullptr) {
      if (function.is_undefined())
        wrong(e.at, fmt::format("the function \"{}\" is not supported", function.undefined_name()));
      wrong(e.at, fmt::format("{} cannot be called", function.described()));
    }
    const Arguments arguments = arguments_of(e, scope);
    if (callable->macro) return call_macro(*callable, arguments, e.at, caller);
    if (callable->self)
      return counted(e.at, placed(e.at, [&] { return call_method(*callable->self, callable->name, arguments); }));
    return placed(e.at, [&] { return call_function(callable->name, arguments, e.at); });
  }

  Value call_macro(const Callable& callable, const Arguments& arguments, size_t at, const Value* caller) {
    const Macro& macro = *callable.macro;
    const size_t most = macro.parameters.size();
    if (++calls_ > kMaxCalls) wrong(at, fmt::format("macros call each other more than {} deep", kMaxCalls));
    if (arguments.positional.size() > most && !macro.takes_rest)
      wrong(at, fmt::format("too many arguments for \"{}\"", macro.name));
    Scope closure{{}, &top_};
    if (callable.self) closure.variables = *callable.self->dict();
    Scope inner{{}, &closure};
    for (size_t i = 0; i < most; ++i) {
      const std::string& name = macro.parameters[i];
      const Value* given = arguments.get(i, name);
      inner.variables.set(name, given               ? *given
                                : macro.defaults[i] ? evaluate(*macro.defaults[i], inner)
                                                    : Value(Undefined{name}));
    }
    Dict named;
    for (const auto& [name, value] : arguments.named) {
      if (std::ranges::find(macro.parameters, name) != macro.parameters.end()) continue;
      if (!macro.takes_named) wrong(at, fmt::format("\"{}\" has no parameter \"{}\"", macro.name, name));
      named.set(name, value);
    }
    if (macro.takes_named) inner.variables.set("kwargs", std::move(named));
    if (macro.takes_rest)
      inner.variables.set("varargs", List(arguments.positional.begin() +
                                              static_cast<std::ptrdiff_t>(std::min(most, arguments.positional.size())),
                                          arguments.positional.end()));
    if (caller) inner.variables.set("caller", *caller);
    std::string text;
    run_body(macro.body, inner, text);
    --calls_;
    return text_value(at, std::move(text));
  }

  Value call_function(const std::string& name, const Arguments& a, size_t at) {
    if (name == "raise_exception") {
      const Value* message = a.get(0, "message");
      fail(ErrorKind::kInvalidArgument, "{}: the template refuses these messages: {}", place_of(source_, origin_, at),
           message ? to_text(*message) : "");
    }
    if (name == "namespace" || name == "dict") {
      Dict made;
      COCA_CHECK_AS(kBadFile, a.positional.size() <= 1, "{}: {} given by position; expected at most one", name,
                    coca::counted(a.positional.size(), "argument"));
      if (!a.positional.empty()) {
        const Dict* given = a.positional[0].dict();
        COCA_CHECK_AS(kBadFile, given && !given->is_namespace, "{}: {} where a dict is expected", name,
                      a.positional[0].described());
        made.items = given->items;
      }
      for (const auto& [key, value] : a.named) {
        COCA_CHECK_AS(kBadFile, !value.dict() || !value.dict()->is_namespace, "a namespace within a {}", name);
        made.set(key, value);
      }
      made.is_namespace = name == "namespace";
      return made;
    }
    if (name == "range") return range(a, at);
    const Value* format = a.get(0, "format");
    COCA_CHECK_AS(kBadFile, format && format->string() && format->string()->size() <= 100,
                  "strftime_now: expected a format of at most 100 bytes");
    std::tm local{};
    localtime_r(&options_.now, &local);
    char text[1000];
    return std::string(text, std::strftime(text, sizeof text, format->string()->c_str(), &local));
  }

  Value range(const Arguments& a, size_t at) {
    const auto whole = [&](size_t i, int64_t absent) {
      if (i >= a.positional.size()) return absent;
      const auto value = a.positional[i].integer();
      COCA_CHECK_AS(kBadFile, value, "range: {} where a whole number is expected", a.positional[i].described());
      return std::clamp(*value, int64_t{-1} << 60, int64_t{1} << 60);
    };
    a.only("range", 3, {});
    COCA_CHECK_AS(kBadFile, !a.positional.empty(), "range: no argument");
    const bool one = a.positional.size() == 1;
    const int64_t begin = one ? 0 : whole(0, 0), end = one ? whole(0, 0) : whole(1, 0), by = whole(2, 1);
    COCA_CHECK_AS(kBadFile, by != 0, "range: a step of 0");
    List out;
    for (int64_t i = begin; by > 0 ? i < end : i > end; i += by) {
      COCA_CHECK_AS(kBadFile, std::ssize(out) < kMaxRange, "range: more than {} items", kMaxRange);
      out.push_back(i);
    }
    step(at, out.size() * 16);
    return out;
  }

  void require_defined(size_t at, std::initializer_list<const Value*> values) const {
    for (const Value* value : values)
      if (value->is_undefined() && !value->undefined_name().empty()) wrong(at, value->undefined_text());
  }

  Value unary(const Expression& e, Scope& scope) {
    const Value v = evaluate(*e.parts[0], scope);
    if (e.name == "not") return !v.truth();
    if (const auto integer = v.integer(); integer) {
      if (e.name == "-" && *integer == INT64_MIN) wrong(e.at, fmt::format("-({}) is too large", *integer));
      return e.name == "-" ? -*integer : *integer;
    }
    if (const auto number = v.number()) return e.name == "-" ? -*number : *number;
    require_defined(e.at, {&v});
    wrong(e.at, fmt::format("{} has no sign", v.described()));
  }

  Value binary(const Expression& e, Scope& scope) {
    const std::string& op = e.name;
    Value left = evaluate(*e.parts[0], scope);
    if (op == "or") return left.truth() ? left : evaluate(*e.parts[1], scope);
    if (op == "and") return left.truth() ? evaluate(*e.parts[1], scope) : left;
    const Value right = evaluate(*e.parts[1], scope);
    if (op == "~") return text_value(e.at, to_text(left) + to_text(right));
    if (op == "+" && left.string() && right.string()) return text_value(e.at, *left.string() + *right.string());
    if (op == "%" && left.string())
      return text_value(e.at, placed(e.at, [&] { return percent_format(*left.string(), right); }));
    if (op == "*" && (left.string() || left.list() || right.string() || right.list())) return repeated(e, left, right);
    if (op == "+" && left.list() && right.list()) {
      List joined = *left.list();
      joined.insert(joined.end(), right.list()->begin(), right.list()->end());
      return counted(e.at, placed(e.at, [&] {
                       return left.is_tuple() ? Value::tuple(std::move(joined)) : Value(std::move(joined));
                     }));
    }
    if (const auto x = left.integer(), y = right.integer(); x && y && op != "/" && (op != "**" || *y >= 0))
      return whole(e, *x, *y);
    const auto x = left.number(), y = right.number();
    require_defined(e.at, {&left, &right});
    if (!x || !y) wrong(e.at, fmt::format("{} {} {} is not supported", left.described(), op, right.described()));
    if ((op == "/" || op == "//" || op == "%") && *y == 0) wrong(e.at, "division by zero");
    if (op == "+") return *x + *y;
    if (op == "-") return *x - *y;
    if (op == "*") return *x * *y;
    if (op == "/") return *x / *y;
    if (op == "//") return std::floor(*x / *y);
    if (op == "%") return *x - *y * std::floor(*x / *y);
    if (*x == 0 && *y < 0) wrong(e.at, "division by zero");
    return std::pow(*x, *y);
  }

  // A text or list times a number.
  Value repeated(const Expression& e, const Value& left, const Value& right) {
    const Value& many = left.string() || left.list() ? left : right;
    const auto given = (&many == &left ? right : left).integer();
    require_defined(e.at, {&left, &right});
    if (!given) wrong(e.at, fmt::format("{} * {} is not supported", left.described(), right.described()));
    const auto times = static_cast<size_t>(std::clamp<int64_t>(*given, 0, int64_t{1} << 30));
    if (const auto* text = many.string()) {
      step(e.at, text->size() * times);
      std::string out;
      for (size_t i = 0; i < times && !text->empty(); ++i) out += *text;
      return out;
    }
    step(e.at, many.list()->size() * times * 16);
    List out;
    for (size_t i = 0; i < times && !many.list()->empty(); ++i)
      out.insert(out.end(), many.list()->begin(), many.list()->end());
    return placed(e.at, [&] { return Value(std::move(out)); });
  }

  // x to the y-th, y >= 0; false beyond 64 bits.
  static bool power(int64_t x, int64_t y, int64_t& out) {
    for (out = 1; y > 0; y /= 2) {
      if (y % 2 == 1 && __builtin_mul_overflow(out, x, &out)) return false;
      if (y > 1 && __builtin_mul_overflow(x, x, &x)) return false;
    }
    return true;
  }

  Value whole(const Expression& e, int64_t x, int64_t y) const {
    int64_t out = 0;
    bool overflow = false;
    if (e.name == "+") overflow = __builtin_add_overflow(x, y, &out);
    if (e.name == "-") overflow = __builtin_sub_overflow(x, y, &out);
    if (e.name == "*") overflow = __builtin_mul_overflow(x, y, &out);
    if (e.name == "**") overflow = !power(x, y, out);
    if (e.name == "//" || e.name == "%") {
      if (y == 0) wrong(e.at, "division by zero");
      overflow = x == INT64_MIN && y == -1;
      if (!overflow) {
        const int64_t quotient = x / y - (x % y != 0 && (x < 0) != (y < 0) ? 1 : 0);  // rounds down, as Python does
        out = e.name == "%" ? x - quotient * y : quotient;
      }
    }
    if (overflow) wrong(e.at, fmt::format("{} {} {} is too large", x, e.name, y));
    return out;
  }

  Value compare(const Expression& e, Scope& scope) {
    Value left = evaluate(*e.parts[0], scope);
    for (size_t i = 0; i < e.names.size(); ++i) {
      Value right = evaluate(*e.parts[i + 1], scope);
      step(e.at, 16 * std::min(left.weight(), right.weight()));
      if (e.names[i].ends_with("in")) counted(e.at, right);
      if (!placed(e.at, [&] { return holds(e.names[i], left, right, e.at); })) return false;
      left = std::move(right);
    }
    return true;
  }

  bool holds(const std::string& op, const Value& a, const Value& b, size_t at) const {
    if (op == "==") return equal(a, b);
    if (op == "!=") return !equal(a, b);
    if (op == "in") return contains(b, a);
    if (op == "not in") return !contains(b, a);
    const auto order = order_of(a, b);
    if (!order) require_defined(at, {&a, &b});
    if (!order) wrong(at, fmt::format("{} {} {} is not supported", a.described(), op, b.described()));
    return op == "<" ? *order < 0 : op == "<=" ? *order <= 0 : op == ">" ? *order > 0 : *order >= 0;
  }

  const RunOptions& options_;
  const std::string& source_;
  const std::string& origin_;
  Scope globals_, top_;
  Output output_;
  const std::string* top_level_ = nullptr;
  int64_t steps_ = 0;
  int calls_ = 0;
};

}  // namespace

Output run_template(const Body& body, const Dict& variables, const RunOptions& options, const std::string& source,
                    const std::string& origin) {
  return Interpreter(variables, options, source, origin).run(body);
}

}  // namespace coca::text::jinja
