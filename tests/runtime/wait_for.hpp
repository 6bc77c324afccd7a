// Runs a coroutine to its end from a test's own thread.
#pragma once

#include <utility>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>

namespace penstock::testing {

template <class T>
T wait_for(boost::asio::thread_pool& pool, boost::asio::awaitable<T> work) {
  return boost::asio::co_spawn(pool, std::move(work), boost::asio::use_future).get();
}

}  // namespace penstock::testing
