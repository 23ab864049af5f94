import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/** Many clients of pgjdbc at once, everything prepared from its first use on. Usage: Crowd.java HOST PORT USER DATABASE */
public class Crowd {
    private static final int CLIENTS = 50;
    private static final int ROUNDS = 8;
    private static final String[] ZONES = {"UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo", "Asia/Kolkata"};

    private static Connection connect(String[] where, int number) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", where[2]);
        properties.setProperty("prepareThreshold", "1");
        properties.setProperty("sslmode", "disable");
        properties.setProperty("connectTimeout", "60");
        properties.setProperty("ApplicationName", "crowd " + number);
        return DriverManager.getConnection("jdbc:postgresql://" + where[0] + ":" + where[1] + "/" + where[3], properties);
    }

    private static void expect(String what, Object found, Object wanted) {
        if (!wanted.equals(found)) {
            throw new IllegalStateException(what + ": found " + found + ", wanted " + wanted);
        }
    }

    private static String shown(Connection connection, String name) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery("show " + name)) {
            rows.next();
            return rows.getString(1);
        }
    }

    private static void work(Connection connection, int number) throws SQLException {
        try (PreparedStatement insert = connection.prepareStatement("insert into crowd_jdbc (owner, n) values (?, ?) returning id");
                PreparedStatement update = connection.prepareStatement("update crowd_jdbc set note = ? where id = ?");
                PreparedStatement find = connection.prepareStatement("select owner, n, note from crowd_jdbc where id = ?");
                PreparedStatement count = connection.prepareStatement("select count(*) from crowd_jdbc where owner = ?")) {
            for (int n = 0; n < ROUNDS; n++) {
                connection.setAutoCommit(false);
                insert.setInt(1, number);
                insert.setInt(2, n);
                long id;
                try (ResultSet rows = insert.executeQuery()) {
                    rows.next();
                    id = rows.getLong(1);
                }
                for (int change = 0; change < 2; change++) {
                    update.setString(1, number + "/" + n);
                    update.setLong(2, id);
                    update.addBatch();
                }
                expect("updated", update.executeBatch().length, 2);
                connection.commit();
                connection.setAutoCommit(true);
                find.setLong(1, id);
                try (ResultSet rows = find.executeQuery()) {
                    rows.next();
                    expect("the row", rows.getInt(1) + " " + rows.getInt(2) + " " + rows.getString(3), number + " " + n + " " + number + "/" + n);
                }
                count.setInt(1, number);
                try (ResultSet rows = count.executeQuery()) {
                    rows.next();
                    expect("rows of one's own", rows.getInt(1), n + 1);
                }
                expect("the time zone", shown(connection, "timezone"), ZONES[number % ZONES.length]);
                expect("the application's name", shown(connection, "application_name"), "crowd " + number);
            }
        }
    }

    public static void main(String[] where) throws Exception {
        long began = System.nanoTime();
        try (Connection first = connect(where, 0); Statement statement = first.createStatement()) {
            statement.execute("drop table if exists crowd_jdbc");
            statement.execute("create table crowd_jdbc (id bigint generated always as identity primary key, owner int not null, n int not null, note text)");
        }
        CyclicBarrier everybody = new CyclicBarrier(CLIENTS);
        ExecutorService threads = Executors.newFixedThreadPool(CLIENTS);
        List<Future<?>> all = new ArrayList<>();
        for (int client = 0; client < CLIENTS; client++) {
            int number = client;
            all.add(threads.submit(() -> {
                try (Connection connection = connect(where, number); Statement statement = connection.createStatement()) {
                    statement.execute("set timezone = '" + ZONES[number % ZONES.length] + "'");
                    everybody.await();
                    work(connection, number);
                }
                return null;
            }));
        }
        for (Future<?> one : all) {
            one.get();
        }
        threads.shutdown();
        System.out.printf("ok crowd pgjdbc %d clients in %.1f s%n", CLIENTS, (System.nanoTime() - began) / 1e9);
    }
}
