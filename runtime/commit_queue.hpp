// Many writers, one connection, shared commits.
//
// Work is submitted from any thread and run in order on the queue's executor, all that waits at once inside
// one transaction, each piece in its own savepoint: a piece that throws is undone alone. `done` is called
// after COMMIT has returned (with synchronous=FULL that is after fdatasync), on the queue's thread; run()
// resumes the caller's own executor instead. If COMMIT itself fails, every piece of the group gets that
// failure and nothing of it is stored. The log is folded into the file between groups, after their `done`.
//
// Owned by a store (topic, flow_store, scheduler::store). Uses no thread while idle. Destruction waits for
// what was submitted: the owner calls close() first, after which submit() reports an error through `done`.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "runtime/commit_pause.hpp"
#include "runtime/sqlite.hpp"

namespace penstock::runtime {

namespace asio = boost::asio;

class commit_queue {
 public:
  using work = std::function<void(sqlite::connection&)>;
  using completion = std::function<void(std::exception_ptr)>;

  // `open` is called on the executor before the first piece of work; `executor` must run one thing at a time
  // (a strand, or a context with one thread). On the queue's thread and before any `done` of the group,
  // `committed` is called after each COMMIT, `undone` after a group was rolled back as a whole (both may be
  // empty; none may throw). A cache that pieces keep in memory is brought back to what is stored there.
  // `pause`: what may hold its commits for a moment; null: nothing does.
  commit_queue(asio::any_io_executor executor, std::function<sqlite::connection()> open,
               std::function<void()> committed = {}, std::function<void()> undone = {},
               std::shared_ptr<commit_pause> pause = {});
  ~commit_queue();
  commit_queue(const commit_queue&) = delete;
  commit_queue& operator=(const commit_queue&) = delete;

  // What submit() reports when the queue is closed.
  class closed : public std::runtime_error {
   public:
    closed() : std::runtime_error("the store is closed") {}
  };

  // `done` must not throw. On a closed queue it is called at once, on the caller's thread, with `closed`.
  void submit(work piece, completion done);

  // Runs `piece` (connection& -> T or void) and resumes the awaiting coroutine on its own executor once
  // durable. Throws what `piece` threw, or the failure of COMMIT.
  template <class F, class T = std::invoke_result_t<F, sqlite::connection&>>
  asio::awaitable<T> run(F piece) {
    return run(std::move(piece), [](const auto&...) {});
  }
  // The same for what must not wait until the caller goes on: `durable(T)` (or `durable()`) is called before, on the queue's
  // thread, unless there is a failure. It must not throw.
  template <class F, class D, class T = std::invoke_result_t<F, sqlite::connection&>>
  asio::awaitable<T> run(F piece, D durable);

  // Why the last commit that was tried was not stored, when the machine is to blame and not what was to be stored (see
  // machine_failure.hpp); nothing: it was stored, or none was tried. Any thread.
  std::optional<std::string> trouble() const;
  // A commit that changes nothing, to see whether trouble() is over. Throws as run() does.
  asio::awaitable<void> probe();

  // Closes the connection until the next piece of work, unless there is some already. `before` is called
  // first, on the executor: for statements that were prepared on the connection. Returns at once.
  void rest(std::function<void()> before);

  // No more work is taken; what waits is committed, then the connection is closed. Blocks until then; not to
  // be called on the queue's executor, nor after that has stopped running. Idempotent.
  void close();

 private:
  struct state;
  std::shared_ptr<state> state_;
};

// ---------------------------------------------------------------------------------------------------------------

template <class F, class D, class T>
asio::awaitable<T> commit_queue::run(F piece, D durable) {
  if constexpr (std::is_void_v<T>) {
    return asio::async_initiate<const asio::use_awaitable_t<>, void(std::exception_ptr)>(
        [this](auto handler, F f, D tell) {
          auto executor = asio::get_associated_executor(handler);
          auto shared = std::make_shared<decltype(handler)>(std::move(handler));
          auto guard = asio::make_work_guard(executor);  // ends where the handler does, whose executor may end with it
          submit([f = std::move(f)](sqlite::connection& db) mutable { f(db); },
                 [shared = std::move(shared), executor, guard, tell = std::move(tell)](std::exception_ptr e) mutable {
                   if (!e) tell();
                   asio::post(executor, [shared = std::move(shared), guard = std::move(guard), e] { std::move (*shared)(e); });
                 });
        },
        asio::use_awaitable, std::move(piece), std::move(durable));
  } else {
    return asio::async_initiate<const asio::use_awaitable_t<>, void(std::exception_ptr, T)>(
        [this](auto handler, F f, D tell) {
          auto executor = asio::get_associated_executor(handler);
          auto shared = std::make_shared<decltype(handler)>(std::move(handler));
          auto guard = asio::make_work_guard(executor);
          auto value = std::make_shared<T>();
          submit([f = std::move(f), value](sqlite::connection& db) mutable { *value = f(db); },
                 [shared = std::move(shared), executor, guard, value, tell = std::move(tell)](std::exception_ptr e) mutable {
                   if (!e) tell(std::as_const(*value));
                   asio::post(executor, [shared = std::move(shared), guard = std::move(guard), e, value] {
                     std::move (*shared)(e, std::move(*value));
                   });
                 });
        },
        asio::use_awaitable, std::move(piece), std::move(durable));
  }
}

}  // namespace penstock::runtime
