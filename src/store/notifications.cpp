#include "store/notifications.h"

#include <libpq-fe.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

namespace calotype::store {
namespace {

constexpr int kPauseAfterBreak = 1000;  // milliseconds

struct Closer {
  void operator()(PGconn* connection) const { PQfinish(connection); }
  void operator()(PGresult* result) const { PQclear(result); }
  void operator()(PGnotify* notification) const { PQfreemem(notification); }
};

/// Nothing when the server does not answer or does not know LISTEN.
std::unique_ptr<PGconn, Closer> listening_connection(const std::string& words) {
  std::unique_ptr<PGconn, Closer> connection(PQconnectdb(("connect_timeout=3 " + words).c_str()));
  if (PQstatus(connection.get()) != CONNECTION_OK) return nullptr;
  PQsetNoticeProcessor(
      connection.get(), [](void*, const char*) {}, nullptr);  // it would print them
  for (const std::string_view channel : {kJobChannel, kQueueChannel}) {
    const std::unique_ptr<PGresult, Closer> done(PQexec(connection.get(), fmt::format("LISTEN {}", channel).c_str()));
    if (PQresultStatus(done.get()) != PGRES_COMMAND_OK) return nullptr;
  }
  return connection;
}

}  // namespace

void notify(Session& session, std::string_view channel, const std::string& text) {
  if (is_postgres(session))  // a function without result; POCO wants one
    rows(session, "SELECT CAST(pg_notify(?, ?) AS TEXT) AS told", {std::string(channel), text});
}

Notifications::Notifications(std::string connection, Hear hear)
    : connection_(std::move(connection)), hear_(std::move(hear)), stop_(::eventfd(0, EFD_CLOEXEC)) {
  thread_ = std::thread([this] { run(); });
}

Notifications::~Notifications() {
  ::eventfd_write(stop_, 1);
  thread_.join();
  ::close(stop_);
}

/// True when it is time to end.
bool Notifications::sleep(int milliseconds) const {
  pollfd stop{.fd = stop_, .events = POLLIN, .revents = 0};
  return ::poll(&stop, 1, milliseconds) > 0;
}

void Notifications::run() {
  do {
    listen();
    listening_ = false;
  } while (!sleep(kPauseAfterBreak));
}

/// Until the connection breaks or it is time to end.
void Notifications::listen() {
  const auto connection = listening_connection(connection_);
  if (!connection) return;
  listening_ = true;
  hear_("", "");
  for (;;) {
    while (const std::unique_ptr<PGnotify, Closer> told{PQnotifies(connection.get())})
      hear_(told->relname, told->extra);
    pollfd watched[] = {{.fd = stop_, .events = POLLIN, .revents = 0},
                        {.fd = PQsocket(connection.get()), .events = POLLIN, .revents = 0}};
    if (::poll(watched, 2, -1) < 0 && errno != EINTR) return;
    if (watched[0].revents != 0 || PQconsumeInput(connection.get()) == 0) return;
  }
}

}  // namespace calotype::store
