#include "runtime/aggregates.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace penstock::runtime {
namespace {

constexpr std::size_t text_overhead = 64;  // bytes of memory that a kept text costs beside itself

bool is_list(aggregate_kind kind) {
  return kind == aggregate_kind::distinct || kind == aggregate_kind::percentile || kind == aggregate_kind::collect;
}

bool needs_number(aggregate_kind kind) {
  switch (kind) {
    case aggregate_kind::min:
    case aggregate_kind::max:
    case aggregate_kind::sum:
    case aggregate_kind::mean:
    case aggregate_kind::stddev:
    case aggregate_kind::percentile:
      return true;
    default:
      return false;
  }
}

using cell = aggregate_cell;

cell::kept_values& kept_of(cell& c) {
  if (!c.kept) c.kept = std::make_unique<cell::kept_values>();
  return *c.kept;
}

std::size_t list_size(const cell& c, aggregate_kind kind) {
  if (!c.kept) return 0;
  if (kind == aggregate_kind::percentile) return c.kept->numbers.size();
  return kind == aggregate_kind::collect ? c.kept->texts.size() : c.kept->known.size();
}

// For a message: whole characters, some 100 bytes.
std::string shortened(std::string_view json) {
  if (json.size() <= 100) return std::string(json);
  std::size_t end = 100;
  while (end > 0 && (static_cast<unsigned char>(json[end]) & 0xC0) == 0x80) --end;
  return std::string(json.substr(0, end)) + "…";
}

// ---- numbers

// Neumaier, "Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen" (1974): Kahan's sum that also holds
// when the next value is larger than the sum.
void add_real(cell& c, double value) {
  const double sum = c.a + value;
  if (std::isfinite(sum)) c.b += std::abs(c.a) >= std::abs(value) ? (c.a - sum) + value : (value - sum) + c.a;
  c.a = sum;
  c.real = true;
}

void add_whole(cell& c, std::int64_t value) {
  std::int64_t sum = 0;
  if (__builtin_add_overflow(c.whole, value, &sum))
    add_real(c, static_cast<double>(value));
  else
    c.whole = sum;
}

void add_sum(cell& c, const json_number& n) {
  if (n.whole)
    add_whole(c, n.integer);
  else
    add_real(c, n.real);
}

// Welford (1962), as in Knuth, TAOCP 2, 4.2.2.
void add_moments(cell& c, double value) {
  const double before = value - c.a;
  c.a += before / static_cast<double>(c.count);
  c.b += before * (value - c.a);
}

// Chan, Golub, LeVeque (1979). Counts are those before joining.
void join_moments(cell& into, const cell& other) {
  const auto n = static_cast<double>(into.count), m = static_cast<double>(other.count);
  const double apart = other.a - into.a;
  into.a += apart * m / (n + m);
  into.b += other.b + apart * apart * n * m / (n + m);
}

long double exact(const cell& c) { return c.real ? static_cast<long double>(c.a) : static_cast<long double>(c.whole); }

// Keeps the smaller (sign 1) or the larger (sign -1) of the two; `c` has one already.
void keep_extreme(cell& c, const cell& other, int sign) {
  if (sign * exact(other) >= sign * exact(c)) return;
  c.whole = other.whole;
  c.a = other.a;
  c.real = other.real;
}

cell cell_with(const json_number& n) {
  cell c;
  c.whole = n.whole ? n.integer : 0;
  c.a = n.whole ? 0 : n.real;
  c.real = !n.whole;
  return c;
}

// numpy's `linear` method, with its way of rounding.
double percentile(std::vector<double> values, double at) {
  std::sort(values.begin(), values.end());
  const double place = at / 100 * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const double low = values[below], high = values[std::min(below + 1, values.size() - 1)];
  const double part = place - std::floor(place);
  if (low == high) return low;
  return part >= 0.5 ? high - (high - low) * (1 - part) : low + (high - low) * part;
}

// ---- texts

std::size_t keep_single(cell& c, std::string_view json, std::int64_t time) {
  std::vector<std::string>& texts = kept_of(c).texts;
  const std::size_t before = texts.empty() ? 0 : texts[0].size() + text_overhead;
  if (texts.empty()) texts.emplace_back();
  texts[0] = json;
  c.whole = time;
  return std::max(json.size() + text_overhead, before) - before;
}

std::size_t add_known(cell& c, std::string_view json) {
  cell::kept_values& kept = kept_of(c);
  std::string memory;
  const auto [place, is_new] = kept.known.emplace(canonical(json, memory));
  if (!is_new) return 0;
  kept.unsaved_known.push_back(&*place);
  return place->size() + text_overhead;
}

}  // namespace

std::optional<json_number> number_of(std::string_view json) {
  if (json.empty() || (json[0] != '-' && (json[0] < '0' || json[0] > '9'))) return std::nullopt;
  const char* const end = json.data() + json.size();
  json_number n;
  const auto whole = std::from_chars(json.data(), end, n.integer);
  if (whole.ec == std::errc() && whole.ptr == end) {
    n.real = static_cast<double>(n.integer);
    return n;
  }
  n.whole = false;
  const auto real = std::from_chars(json.data(), end, n.real);
  if (real.ec != std::errc() || real.ptr != end) return std::nullopt;
  return n;
}

void append_number(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  char text[32];
  const auto written = std::to_chars(text, text + sizeof text, value);
  const std::string_view digits(text, static_cast<std::size_t>(written.ptr - text));
  out += digits;
  if (digits.find_first_of(".e") == digits.npos) out += ".0";
}

std::string_view canonical(std::string_view json, std::string& memory) {
  const std::optional<json_number> n = number_of(json);
  if (!n || n->whole) return json == "-0" ? "0" : json;
  memory.clear();
  // 2^63 is exact as a double; all below fit.
  if (n->real == std::floor(n->real) && std::abs(n->real) < 9223372036854775808.0)
    memory = std::to_string(static_cast<std::int64_t>(n->real));
  else
    append_number(memory, n->real);
  return memory;
}

// ---------------------------------------------------------------------------------------------------------------
// The plan

aggregate_plan::aggregate_plan(std::vector<aggregate_use> uses) : uses_(std::move(uses)) {
  for (const aggregate_use& use : uses_) {
    const std::size_t column = use.kind == aggregate_kind::events ? 0 : column_of(use);
    if (needs_number(use.kind) && needs_number_[column].empty()) needs_number_[column] = use.name;
    shown_.push_back({",\"" + use.name + "\":", use.kind, cell_of(use, column), use.at});
    has_lists_ = has_lists_ || is_list(use.kind);
  }
}

std::size_t aggregate_plan::column_of(const aggregate_use& use) {
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    if (columns_[i].second == use.expression) return i;
  }
  columns_.emplace_back(use.name, use.expression);
  needs_number_.emplace_back();
  return columns_.size() - 1;
}

std::size_t aggregate_plan::cell_of(const aggregate_use& use, std::size_t column) {
  for (std::size_t i = 0; i < cells_.size(); ++i) {
    if (cells_[i].kind == use.kind && cells_[i].column == column) return i;
  }
  cells_.push_back({use.kind, column});
  return cells_.size() - 1;
}

std::string aggregate_plan::description() const {
  std::string text;
  for (const cell_plan& c : cells_) {
    const bool of_events = c.kind == aggregate_kind::events;
    text += std::to_string(static_cast<int>(c.kind)) + " " + (of_events ? "" : columns_[c.column].second) + "\n";
  }
  return text;
}

std::string aggregate_plan::check(std::vector<aggregate_value>& values) const {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (needs_number_[i].empty() || values[i].json.empty()) continue;
    const std::optional<json_number> n = number_of(values[i].json);
    if (!n) {
      return needs_number_[i] + ": a number is needed, not " + shortened(values[i].json);
    }
    values[i].number = *n;
  }
  return {};
}

bool aggregate_plan::has_room(const aggregate_state& state, const std::vector<aggregate_value>& values,
                              std::size_t most_values) const {
  if (!has_lists_) return true;
  for (std::size_t i = 0; i < cells_.size(); ++i) {
    const cell_plan& plan = cells_[i];
    if (!is_list(plan.kind) || values[plan.column].json.empty()) continue;
    if (list_size(state[i], plan.kind) < most_values) continue;
    std::string memory;
    const bool known = plan.kind == aggregate_kind::distinct &&
                       state[i].kept->known.contains(std::string(canonical(values[plan.column].json, memory)));
    if (!known) return false;
  }
  return true;
}

std::size_t aggregate_plan::most_bytes(const std::vector<aggregate_value>& values) const {
  std::size_t bytes = 0;
  for (const cell_plan& plan : cells_) {
    switch (plan.kind) {
      case aggregate_kind::first:
      case aggregate_kind::last:
      case aggregate_kind::distinct:
      case aggregate_kind::collect:
        bytes += values[plan.column].json.size() + text_overhead;
        break;
      case aggregate_kind::percentile:
        bytes += sizeof(double);
        break;
      default:
        break;
    }
  }
  return bytes;
}

std::size_t aggregate_plan::add(aggregate_state& state, const std::vector<aggregate_value>& values,
                                std::int64_t time) const {
  std::size_t grown = 0;
  for (std::size_t i = 0; i < cells_.size(); ++i) {
    const aggregate_kind kind = cells_[i].kind;
    cell& c = state[i];
    if (kind == aggregate_kind::events) {
      ++c.count;
      continue;
    }
    const aggregate_value& value = values[cells_[i].column];
    if (value.json.empty() || (kind == aggregate_kind::count && value.json == "false")) continue;
    ++c.count;
    switch (kind) {
      case aggregate_kind::events:
      case aggregate_kind::count:
        break;
      case aggregate_kind::first:
        if (c.count == 1 || time < c.whole) grown += keep_single(c, value.json, time);
        break;
      case aggregate_kind::last:
        if (c.count == 1 || time >= c.whole) grown += keep_single(c, value.json, time);
        break;
      case aggregate_kind::min:
      case aggregate_kind::max: {
        cell other = cell_with(value.number);
        if (c.count == 1) {
          other.count = 1;
          c = std::move(other);
        } else {
          keep_extreme(c, other, kind == aggregate_kind::min ? 1 : -1);
        }
        break;
      }
      case aggregate_kind::sum:
        add_sum(c, value.number);
        break;
      case aggregate_kind::mean:
      case aggregate_kind::stddev:
        add_moments(c, value.number.real);
        break;
      case aggregate_kind::distinct:
        grown += add_known(c, value.json);
        c.count = static_cast<std::int64_t>(c.kept->known.size());
        break;
      case aggregate_kind::percentile:
        kept_of(c).numbers.push_back(value.number.real);
        grown += sizeof(double);
        break;
      case aggregate_kind::collect:
        kept_of(c).texts.emplace_back(value.json);
        grown += value.json.size() + text_overhead;
        break;
    }
  }
  return grown;
}

bool aggregate_plan::can_join(const aggregate_state& into, const aggregate_state& other,
                              std::size_t most_values) const {
  for (std::size_t i = 0; i < cells_.size(); ++i) {
    const aggregate_kind kind = cells_[i].kind;
    if (is_list(kind) && list_size(into[i], kind) + list_size(other[i], kind) > most_values) return false;
  }
  return true;
}

void aggregate_plan::join(aggregate_state& into, aggregate_state&& other) const {
  for (std::size_t i = 0; i < cells_.size(); ++i) {
    const aggregate_kind kind = cells_[i].kind;
    cell& c = into[i];
    cell& o = other[i];
    if (o.count == 0) continue;
    if (c.count == 0 && !is_list(kind)) {
      c = std::move(o);
      continue;
    }
    const std::int64_t both = c.count + o.count;
    switch (kind) {
      case aggregate_kind::events:
      case aggregate_kind::count:
        break;
      case aggregate_kind::first:
        if (o.whole < c.whole) keep_single(c, o.kept->texts[0], o.whole);
        break;
      case aggregate_kind::last:
        if (o.whole >= c.whole) keep_single(c, o.kept->texts[0], o.whole);
        break;
      case aggregate_kind::min:
        keep_extreme(c, o, 1);
        break;
      case aggregate_kind::max:
        keep_extreme(c, o, -1);
        break;
      case aggregate_kind::sum:
        add_whole(c, o.whole);
        if (o.real) {
          add_real(c, o.a);
          c.b += o.b;
        }
        break;
      case aggregate_kind::mean:
      case aggregate_kind::stddev:
        join_moments(c, o);
        break;
      case aggregate_kind::distinct:
        for (const std::string& text : o.kept->known) add_known(c, text);
        break;
      case aggregate_kind::percentile: {
        std::vector<double>& all = kept_of(c).numbers;
        all.insert(all.end(), o.kept->numbers.begin(), o.kept->numbers.end());
        break;
      }
      case aggregate_kind::collect:
        std::move(o.kept->texts.begin(), o.kept->texts.end(), std::back_inserter(kept_of(c).texts));
        break;
    }
    c.count = kind == aggregate_kind::distinct ? static_cast<std::int64_t>(c.kept->known.size()) : both;
  }
}

std::size_t aggregate_plan::kept_bytes(const aggregate_state& state) const {
  std::size_t bytes = 0;
  for (const cell& c : state) {
    if (!c.kept) continue;
    bytes += c.kept->numbers.size() * sizeof(double);
    for (const std::string& text : c.kept->texts) bytes += text.size() + text_overhead;
    for (const std::string& text : c.kept->known) bytes += text.size() + text_overhead;
  }
  return bytes;
}

// ---------------------------------------------------------------------------------------------------------------
// The result

namespace {

void append_list(std::string& out, const cell& c) {
  out += '[';
  if (c.kept) {
    for (std::size_t i = 0; i < c.kept->texts.size(); ++i) {
      if (i > 0) out += ',';
      out += c.kept->texts[i];
    }
  }
  out += ']';
}

void append_value(std::string& out, const cell& c, aggregate_kind kind, double at) {
  const auto n = static_cast<double>(c.count);
  switch (kind) {
    case aggregate_kind::events:
    case aggregate_kind::count:
    case aggregate_kind::distinct:
      out += std::to_string(c.count);
      return;
    case aggregate_kind::collect:
      append_list(out, c);
      return;
    default:
      break;
  }
  if (c.count == 0 || (kind == aggregate_kind::stddev && c.count < 2)) {
    out += "null";
    return;
  }
  switch (kind) {
    case aggregate_kind::first:
    case aggregate_kind::last:
      out += c.kept->texts[0];
      return;
    case aggregate_kind::min:
    case aggregate_kind::max:
      if (c.real)
        append_number(out, c.a);
      else
        out += std::to_string(c.whole);
      return;
    case aggregate_kind::sum:
      if (c.real)
        append_number(out, c.a + (c.b + static_cast<double>(c.whole)));
      else
        out += std::to_string(c.whole);
      return;
    case aggregate_kind::mean:
      append_number(out, c.a);
      return;
    case aggregate_kind::stddev:
      append_number(out, std::sqrt(c.b / (n - 1)));
      return;
    default:
      append_number(out, percentile(c.kept->numbers, at));
      return;
  }
}

}  // namespace

void aggregate_plan::append_result(std::string& out, const aggregate_state& state) const {
  for (const shown& s : shown_) {
    out += s.prefix;
    append_value(out, state[s.cell], s.kind, s.at);
  }
}

// ---------------------------------------------------------------------------------------------------------------
// The durable state

void aggregate_plan::write(state_writer& out, const aggregate_state& state) const {
  for (std::size_t i = 0; i < cells_.size(); ++i) {
    const aggregate_kind kind = cells_[i].kind;
    const cell& c = state[i];
    out.integer(c.count);
    if (kind == aggregate_kind::events || kind == aggregate_kind::count || is_list(kind)) continue;
    if (kind == aggregate_kind::first || kind == aggregate_kind::last) {
      out.integer(c.whole);
      out.text(c.kept ? std::string_view(c.kept->texts[0]) : std::string_view());
      continue;
    }
    out.integer(c.whole);
    out.integer(c.real);
    out.real(c.a);
    out.real(c.b);
  }
}

aggregate_state aggregate_plan::read(state_reader& in) const {
  aggregate_state state = begin();
  for (std::size_t i = 0; i < cells_.size(); ++i) {
    const aggregate_kind kind = cells_[i].kind;
    cell& c = state[i];
    c.count = in.integer();
    if (c.count < 0) state_reader::damaged();
    if (kind == aggregate_kind::events || kind == aggregate_kind::count || is_list(kind)) continue;
    c.whole = in.integer();
    if (kind == aggregate_kind::first || kind == aggregate_kind::last) {
      const std::string_view text = in.text();
      if (c.count > 0) kept_of(c).texts.emplace_back(text);
      continue;
    }
    c.real = in.integer() != 0;
    c.a = in.real();
    c.b = in.real();
  }
  return state;
}

bool aggregate_plan::append_unsaved(state_writer& out, aggregate_state& state) const {
  bool any = false;
  for (std::size_t i = 0; has_lists_ && i < cells_.size(); ++i) {
    const cell& c = state[i];
    any = any || (is_list(cells_[i].kind) && c.kept &&
                  (!c.kept->unsaved_known.empty() || list_size(c, cells_[i].kind) > c.kept->saved));
  }
  if (!any) return false;
  for (std::size_t i = 0; i < cells_.size(); ++i) {
    if (!is_list(cells_[i].kind)) continue;
    cell::kept_values& kept = kept_of(state[i]);
    if (cells_[i].kind == aggregate_kind::distinct) {
      out.integer(static_cast<std::int64_t>(kept.unsaved_known.size()));
      for (const std::string* text : kept.unsaved_known) out.text(*text);
      kept.unsaved_known.clear();
    } else if (cells_[i].kind == aggregate_kind::collect) {
      out.integer(static_cast<std::int64_t>(kept.texts.size() - kept.saved));
      for (std::size_t k = kept.saved; k < kept.texts.size(); ++k) out.text(kept.texts[k]);
    } else {
      out.integer(static_cast<std::int64_t>(kept.numbers.size() - kept.saved));
      for (std::size_t k = kept.saved; k < kept.numbers.size(); ++k) out.real(kept.numbers[k]);
    }
    kept.saved = list_size(state[i], cells_[i].kind);
  }
  return true;
}

void aggregate_plan::read_values(state_reader& in, aggregate_state& state) const {
  for (std::size_t i = 0; i < cells_.size(); ++i) {
    const aggregate_kind kind = cells_[i].kind;
    if (!is_list(kind)) continue;
    cell::kept_values& kept = kept_of(state[i]);
    for (std::int64_t left = in.integer(); left > 0; --left) {
      if (kind == aggregate_kind::percentile)
        kept.numbers.push_back(in.real());
      else if (kind == aggregate_kind::collect)
        kept.texts.emplace_back(in.text());
      else
        kept.known.emplace(in.text());
    }
    kept.saved = list_size(state[i], kind);
  }
  in.end();
}

void aggregate_plan::check_complete(const aggregate_state& state) const {
  for (std::size_t i = 0; i < cells_.size(); ++i) {
    const bool complete = static_cast<std::int64_t>(list_size(state[i], cells_[i].kind)) == state[i].count;
    if (is_list(cells_[i].kind) && !complete) state_reader::damaged();
  }
}

}  // namespace penstock::runtime
