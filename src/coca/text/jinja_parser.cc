// coca/text/jinja_parser.cc - tokens to the tree of jinja_ast.h. The grammar is Jinja's own, without inheritance,
// includes and what else chat templates have no use for; all of that is refused by name.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>

#include "coca/base/error.h"
#include "coca/text/jinja_ast.h"
#include "coca/text/jinja_lexer.h"

namespace coca::text::jinja {

namespace {

constexpr int kMaxDepth = 100;  // of expressions and statements within each other
using Kind = Expression::Kind;
using Words = std::initializer_list<std::string_view>;

class Parser {
 public:
  Parser(const std::string& source, const std::string& origin)
      : source_(source), origin_(origin), tokens_(lex_template(source, origin)) {}

  Body run() {
    Body body = parse_body({});
    if (peek().kind != Token::Kind::kEnd) wrong(fmt::format("{{% {} %}} without its beginning", peek(1).text));
    return body;
  }

 private:
  [[noreturn]] void wrong(std::string_view what) const {
    fail(ErrorKind::kBadFile, "{}: {}", place_of(source_, origin_, peek().at), what);
  }
  const Token& peek(size_t ahead = 0) const { return tokens_[std::min(next_ + ahead, tokens_.size() - 1)]; }
  bool is_sign(std::string_view sign) const { return peek().kind == Token::Kind::kSign && peek().text == sign; }
  bool is_word(std::string_view word, size_t ahead = 0) const {
    return peek(ahead).kind == Token::Kind::kName && peek(ahead).text == word;
  }
  bool take_sign(std::string_view sign) {
    const bool found = is_sign(sign);
    next_ += found ? 1 : 0;
    return found;
  }
  bool take_word(std::string_view word) {
    const bool found = is_word(word);
    next_ += found ? 1 : 0;
    return found;
  }
  void need_sign(std::string_view sign) {
    if (!take_sign(sign)) wrong(fmt::format("\"{}\" where \"{}\" is expected", peek().text, sign));
  }
  std::string need_name() {
    if (peek().kind != Token::Kind::kName) wrong(fmt::format("\"{}\" where a name is expected", peek().text));
    return tokens_[next_++].text;
  }
  void need_block_end() {
    if (peek().kind != Token::Kind::kBlockEnd) wrong(fmt::format("\"{}\" where %}} is expected", peek().text));
    ++next_;
  }

  struct Deeper {
    explicit Deeper(Parser& p) : parser(p) {
      if (++parser.depth_ > kMaxDepth) parser.wrong(fmt::format("nested deeper than {} levels", kMaxDepth));
    }
    ~Deeper() { --parser.depth_; }
    Parser& parser;
  };

  // --- statements

  // Up to a block that begins with one of `ends` (left to be read), or the end of the template.
  Body parse_body(Words ends) {
    const Deeper deeper(*this);
    Body body;
    while (peek().kind != Token::Kind::kEnd) {
      const Token& token = peek();
      auto made = std::make_unique<Statement>();
      made->at = token.at;
      if (token.kind == Token::Kind::kText) {
        made->text = token.text;
        ++next_;
      } else if (token.kind == Token::Kind::kPrintBegin) {
        ++next_;
        made->kind = Statement::Kind::kPrint;
        made->value = parse_tuple();
        if (peek().kind != Token::Kind::kPrintEnd) wrong(fmt::format("\"{}\" where }}}} is expected", peek().text));
        ++next_;
      } else {
        if (std::ranges::any_of(ends, [&](std::string_view end) { return is_word(end, 1); })) return body;
        if (peek(1).text.starts_with("end") || is_word("else", 1) || is_word("elif", 1)) return body;
        ++next_;
        parse_block(*made);
      }
      body.push_back(std::move(made));
    }
    return body;
  }

  void end_of(std::string_view end) {
    if (peek().kind != Token::Kind::kBlockBegin || !is_word(end, 1)) wrong(fmt::format("{{% {} %}} is missing", end));
    next_ += 2;
    need_block_end();
  }

  void parse_block(Statement& s) {
    const std::string name = need_name();
    if (name == "if") return parse_if(s);
    if (name == "for") return parse_for(s);
    if (name == "set") return parse_set(s);
    if (name == "macro") return parse_macro(s);
    if (name == "with") return parse_with(s);
    if (name == "call") return parse_call(s);
    if (name == "filter") {
      s.kind = Statement::Kind::kFilter;
      s.value = parse_block_filter("endfilter", s);
      return;
    }
    if (name == "generation") {
      s.kind = Statement::Kind::kGeneration;
      need_block_end();
      s.bodies.push_back(parse_body({"endgeneration"}));
      return end_of("endgeneration");
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) wrong(fmt::format("{{% {} %}} outside of a loop", name));
      s.kind = name == "break" ? Statement::Kind::kBreak : Statement::Kind::kContinue;
      return need_block_end();
    }
    --next_;
    wrong(
        fmt::format("{{% {} %}} is not supported; expected if, for, set, macro, call, filter, with, break, continue, "
                    "generation or raw",
                    name));
  }

  void parse_if(Statement& s) {
    s.kind = Statement::Kind::kIf;
    while (true) {
      s.conditions.push_back(parse_tuple());
      need_block_end();
      s.bodies.push_back(parse_body({"elif", "else", "endif"}));
      if (peek().kind != Token::Kind::kBlockBegin || !is_word("elif", 1)) break;
      next_ += 2;
    }
    if (peek().kind == Token::Kind::kBlockBegin && is_word("else", 1)) {
      next_ += 2;
      need_block_end();
      s.bodies.push_back(parse_body({"endif"}));
    }
    end_of("endif");
  }

  void parse_for(Statement& s) {
    s.kind = Statement::Kind::kFor;
    s.names = parse_names();
    if (!take_word("in")) wrong(fmt::format("\"{}\" where \"in\" is expected", peek().text));
    s.value = parse_or();
    if (is_sign(",")) {
      s.value = make(Kind::kList, "()", std::move(s.value));
      while (take_sign(",") && peek().kind != Token::Kind::kBlockEnd) s.value->parts.push_back(parse_or());
    }
    if (take_word("if")) s.condition = parse_expression();
    if (take_word("recursive")) s.text = "recursive";
    need_block_end();
    ++loops_;
    s.bodies.push_back(parse_body({"else", "endfor"}));
    --loops_;
    if (peek().kind == Token::Kind::kBlockBegin && is_word("else", 1)) {
      next_ += 2;
      need_block_end();
      s.bodies.push_back(parse_body({"endfor"}));
    }
    end_of("endfor");
  }

  std::vector<std::string> parse_names() {
    const bool parentheses = take_sign("(");
    std::vector<std::string> names = {need_name()};
    while (take_sign(",")) names.push_back(need_name());
    if (parentheses) need_sign(")");
    return names;
  }

  void parse_set(Statement& s) {
    s.kind = Statement::Kind::kSet;
    s.names = parse_names();
    if (s.names.size() == 1 && take_sign(".")) s.attribute = need_name();
    if (take_sign("=")) {
      s.value = parse_tuple();
      return need_block_end();
    }
    if (s.names.size() > 1) wrong("a block has one value; several names are set to it");
    s.value = parse_block_filter("endset", s);
  }

  // The filters that follow, none or more, of the text of the block up to `end`.
  ExpressionPtr parse_block_filter(std::string_view end, Statement& s) {
    ExpressionPtr text = make(Kind::kName, kBlockText);
    if (peek().kind == Token::Kind::kName) {
      std::string name = need_name();
      text = make(Kind::kFilter, std::move(name), std::move(text));
      if (is_sign("(")) text->arguments = parse_arguments();
    }
    text = parse_filters(std::move(text));
    need_block_end();
    s.bodies.push_back(parse_body({end}));
    end_of(end);
    return text;
  }

  void parse_with(Statement& s) {
    s.kind = Statement::Kind::kWith;
    while (peek().kind != Token::Kind::kBlockEnd) {
      s.names.push_back(need_name());
      need_sign("=");
      s.conditions.push_back(parse_expression());
      if (peek().kind != Token::Kind::kBlockEnd) need_sign(",");
    }
    need_block_end();
    s.bodies.push_back(parse_body({"endwith"}));
    end_of("endwith");
  }

  void parse_macro(Statement& s) {
    s.kind = Statement::Kind::kMacro;
    s.macro = std::make_unique<Macro>();
    s.macro->name = need_name();
    parse_parameters(*s.macro);
    parse_macro_body(*s.macro, "endmacro");
  }

  void parse_call(Statement& s) {
    s.kind = Statement::Kind::kCall;
    s.macro = std::make_unique<Macro>();
    s.macro->name = "caller";
    if (is_sign("(")) parse_parameters(*s.macro);
    s.value = parse_expression();
    if (s.value->kind != Kind::kCall) wrong("{% call %} without a call");
    parse_macro_body(*s.macro, "endcall");
  }

  void parse_parameters(Macro& macro) {
    need_sign("(");
    while (!take_sign(")")) {
      macro.parameters.push_back(need_name());
      macro.defaults.push_back(take_sign("=") ? parse_expression() : nullptr);
      if (!is_sign(")")) need_sign(",");
    }
  }

  void parse_macro_body(Macro& macro, std::string_view end) {
    need_block_end();
    const int loops = std::exchange(loops_, 0);
    Macro* const outer = std::exchange(macro_, &macro);
    macro.body = parse_body({end});
    macro_ = outer;
    loops_ = loops;
    end_of(end);
  }

  // --- expressions, loosest first

  ExpressionPtr make(Kind kind, std::string name = "") const {
    auto e = std::make_unique<Expression>();
    e->kind = kind;
    e->at = peek().at;
    e->name = std::move(name);
    return e;
  }
  template <typename... Parts>
  ExpressionPtr make(Kind kind, std::string name, ExpressionPtr first, Parts... parts) const {
    ExpressionPtr e = make(kind, std::move(name));
    e->at = first->at;
    e->parts.push_back(std::move(first));
    (e->parts.push_back(std::move(parts)), ...);
    return e;
  }

  ExpressionPtr parse_tuple() {
    ExpressionPtr first = parse_expression();
    if (!is_sign(",")) return first;
    ExpressionPtr list = make(Kind::kList, "()", std::move(first));
    while (take_sign(",")) {
      if (peek().kind == Token::Kind::kBlockEnd || peek().kind == Token::Kind::kPrintEnd) break;
      list->parts.push_back(parse_expression());
    }
    return list;
  }

  ExpressionPtr parse_expression() {
    const Deeper deeper(*this);
    ExpressionPtr e = parse_or();
    while (take_word("if")) {
      ExpressionPtr condition = parse_or();
      ExpressionPtr otherwise = take_word("else") ? parse_expression() : nullptr;
      ExpressionPtr whole = make(Kind::kConditional, "", std::move(condition), std::move(e), std::move(otherwise));
      e = std::move(whole);
    }
    return e;
  }

  ExpressionPtr parse_or() {
    ExpressionPtr e = parse_and();
    while (take_word("or")) e = binary("or", std::move(e), parse_and());
    return e;
  }
  ExpressionPtr parse_and() {
    ExpressionPtr e = parse_not();
    while (take_word("and")) e = binary("and", std::move(e), parse_not());
    return e;
  }
  ExpressionPtr parse_not() {
    const Deeper deeper(*this);
    return take_word("not") ? make(Kind::kUnary, "not", parse_not()) : parse_compare();
  }

  ExpressionPtr parse_compare() {
    ExpressionPtr first = parse_sum();
    ExpressionPtr e;
    while (true) {
      std::string name;
      for (const char* sign : {"==", "!=", "<=", ">=", "<", ">"})
        if (name.empty() && take_sign(sign)) name = sign;
      if (name.empty() && take_word("in")) name = "in";
      if (name.empty() && is_word("not") && is_word("in", 1)) {
        next_ += 2;
        name = "not in";
      }
      if (name.empty()) return e ? std::move(e) : std::move(first);
      if (!e) e = make(Kind::kCompare, "", std::move(first));
      e->names.push_back(name);
      e->parts.push_back(parse_sum());
    }
  }

  ExpressionPtr binary(std::string name, ExpressionPtr left, ExpressionPtr right) const {
    return make(Kind::kBinary, std::move(name), std::move(left), std::move(right));
  }
  template <typename Next>
  ExpressionPtr parse_binary(Words signs, const Next& next) {
    ExpressionPtr e = next();
    while (true) {
      const auto sign = std::ranges::find_if(signs, [&](std::string_view s) { return take_sign(s); });
      if (sign == signs.end()) return e;
      e = binary(std::string(*sign), std::move(e), next());
    }
  }
  ExpressionPtr parse_sum() {
    return parse_binary({"+", "-"}, [&] { return parse_concat(); });
  }
  ExpressionPtr parse_concat() {
    return parse_binary({"~"}, [&] { return parse_product(); });
  }
  ExpressionPtr parse_product() {
    return parse_binary({"*", "//", "/", "%"}, [&] { return parse_power(); });
  }
  ExpressionPtr parse_power() {
    return parse_binary({"**"}, [&] { return parse_unary(Filters::kYes); });
  }

  enum class Filters { kYes, kNo };
  ExpressionPtr parse_unary(Filters filters) {
    const Deeper deeper(*this);
    ExpressionPtr e;
    if (is_sign("-") || is_sign("+")) {
      std::string sign = tokens_[next_++].text;
      e = make(Kind::kUnary, std::move(sign), parse_unary(Filters::kNo));
    } else {
      e = parse_postfix(parse_primary());
    }
    return filters == Filters::kYes ? parse_filters(std::move(e)) : std::move(e);
  }

  ExpressionPtr literal(Value value) {
    ExpressionPtr e = make(Kind::kLiteral);
    e->value = std::move(value);
    ++next_;
    return e;
  }

  ExpressionPtr parse_primary() {
    const Token& token = peek();
    switch (token.kind) {
      case Token::Kind::kName: {
        const std::string& name = token.text;
        if (name == "true" || name == "True") return literal(true);
        if (name == "false" || name == "False") return literal(false);
        if (name == "none" || name == "None") return literal(nullptr);
        if (macro_ && name == "varargs") macro_->takes_rest = true;
        if (macro_ && name == "kwargs") macro_->takes_named = true;
        ExpressionPtr e = make(Kind::kName, name);
        ++next_;
        return e;
      }
      case Token::Kind::kString: {
        ExpressionPtr e = make(Kind::kLiteral);
        std::string text;
        while (peek().kind == Token::Kind::kString) text += tokens_[next_++].text;
        e->value = std::move(text);
        return e;
      }
      case Token::Kind::kInteger: {
        int64_t value = 0;
        const auto [end, error] = std::from_chars(token.text.data(), token.text.data() + token.text.size(), value);
        if (error != std::errc()) wrong(fmt::format("{} is too large", token.text));
        return literal(value);
      }
      case Token::Kind::kFloat: return literal(std::stod(token.text));
      default: break;
    }
    if (take_sign("(")) return parse_parentheses();
    if (is_sign("[")) return parse_list();
    if (is_sign("{")) return parse_dict();
    wrong(fmt::format("\"{}\" where a value is expected", token.text));
  }

  ExpressionPtr parse_parentheses() {
    if (take_sign(")")) return make(Kind::kList, "()");
    ExpressionPtr e = parse_expression();
    if (is_sign(",")) {
      e = make(Kind::kList, "()", std::move(e));
      while (take_sign(",") && !is_sign(")")) e->parts.push_back(parse_expression());
    }
    need_sign(")");
    return e;
  }

  ExpressionPtr parse_list() {
    ExpressionPtr e = make(Kind::kList);
    need_sign("[");
    while (!take_sign("]")) {
      e->parts.push_back(parse_expression());
      if (!is_sign("]")) need_sign(",");
    }
    return e;
  }

  ExpressionPtr parse_dict() {
    ExpressionPtr e = make(Kind::kDict);
    need_sign("{");
    while (!take_sign("}")) {
      e->parts.push_back(parse_expression());
      need_sign(":");
      e->parts.push_back(parse_expression());
      if (!is_sign("}")) need_sign(",");
    }
    return e;
  }

  ExpressionPtr parse_postfix(ExpressionPtr e) {
    while (true) {
      if (is_sign(".") && peek(1).kind == Token::Kind::kInteger) {  // x.0 is x[0]
        ++next_;
        e = make(Kind::kItem, "", std::move(e), parse_primary());
      } else if (take_sign(".")) {
        std::string name = need_name();
        e = make(Kind::kAttribute, std::move(name), std::move(e));
      } else if (take_sign("[")) {
        e = parse_subscript(std::move(e));
      } else if (is_sign("(")) {
        e = make(Kind::kCall, "", std::move(e));
        e->arguments = parse_arguments();
      } else {
        return e;
      }
    }
  }

  ExpressionPtr parse_subscript(ExpressionPtr object) {
    ExpressionPtr bounds[3];
    bool slice = false;
    for (size_t i = 0; i < 3; ++i) {
      if (!is_sign(":") && !is_sign("]")) bounds[i] = parse_expression();
      if (!take_sign(":")) break;
      slice = true;
    }
    need_sign("]");
    if (!slice && !bounds[0]) wrong("[] without a key");
    if (!slice) return make(Kind::kItem, "", std::move(object), std::move(bounds[0]));
    return make(Kind::kSlice, "", std::move(object), std::move(bounds[0]), std::move(bounds[1]), std::move(bounds[2]));
  }

  std::vector<Argument> parse_arguments() {
    std::vector<Argument> arguments;
    need_sign("(");
    while (!take_sign(")")) {
      Argument argument;
      if (is_sign("*") || is_sign("**")) {
        argument.name = tokens_[next_++].text;
      } else if (peek().kind == Token::Kind::kName && peek(1).kind == Token::Kind::kSign && peek(1).text == "=") {
        argument.name = need_name();
        need_sign("=");
      } else if (!arguments.empty() && !arguments.back().name.empty()) {
        wrong("a positional argument after a named one");
      }
      argument.value = parse_expression();
      arguments.push_back(std::move(argument));
      if (!is_sign(")")) need_sign(",");
    }
    return arguments;
  }

  ExpressionPtr parse_filters(ExpressionPtr e) {
    while (true) {
      if (take_sign("|")) {
        std::string name = need_name();
        e = make(Kind::kFilter, std::move(name), std::move(e));
        if (is_sign("(")) e->arguments = parse_arguments();
      } else if (take_word("is")) {
        e = parse_test(std::move(e));
      } else if (is_sign("(") || is_sign(".") || is_sign("[")) {
        e = parse_postfix(std::move(e));
      } else {
        return e;
      }
    }
  }

  ExpressionPtr parse_test(ExpressionPtr e) {
    const bool negated = take_word("not");
    std::string name = need_name();
    e = make(Kind::kTest, std::move(name), std::move(e));
    e->negated = negated;
    const Token& next = peek();
    const bool keyword = next.kind == Token::Kind::kName &&
                         (next.text == "else" || next.text == "or" || next.text == "and" || next.text == "if" ||
                          next.text == "is" || next.text == "in" || next.text == "not");
    if (is_sign("(")) {
      e->arguments = parse_arguments();
    } else if ((next.kind == Token::Kind::kName && !keyword) || next.kind == Token::Kind::kString ||
               next.kind == Token::Kind::kInteger || next.kind == Token::Kind::kFloat || is_sign("[") || is_sign("{")) {
      e->arguments.push_back({"", parse_postfix(parse_primary())});
    }
    return e;
  }

  const std::string& source_;
  const std::string& origin_;
  std::vector<Token> tokens_;
  size_t next_ = 0;
  int depth_ = 0, loops_ = 0;
  Macro* macro_ = nullptr;  // whose body is being read
};

}  // namespace

Body parse_template(const std::string& source, const std::string& origin) { return Parser(source, origin).run(); }

}  // namespace coca::text::jinja
